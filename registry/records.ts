import * as z from 'zod';
import { digestSchema } from '../oci/digest-schema.ts';
import { parseJson } from '../oci/json.ts';
import type { Link, ReferrersRecord, TagRecord } from './store.ts';

/**
 * The records that stores keep as JSON. One that cannot be read is as good as none: it is made anew from the
 * upstream.
 */
const linkSchema = z.object({ mediaType: z.string().exactOptional(), size: z.number().exactOptional() });
const tagSchema = z.object({
  digest: digestSchema,
  checkedAt: z.number(),
  mediaType: z.string().exactOptional(),
});
const referrersSchema = z.object({ list: digestSchema.exactOptional(), checkedAt: z.number() });

export function parseLink(text: string): Link | undefined {
  return linkSchema.safeParse(parseJson(text)).data;
}

export function parseTag(text: string): TagRecord | undefined {
  return tagSchema.safeParse(parseJson(text)).data;
}

export function parseReferrersRecord(text: string): ReferrersRecord | undefined {
  return referrersSchema.safeParse(parseJson(text)).data;
}
