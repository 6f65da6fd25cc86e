import * as z from 'zod';
import { parseJson } from './json.ts';

/** The type of an image index, which is also that of a list of referrers. */
export const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';

/** A descriptor in a list of referrers, with every key that the registry gave it. */
export type Referrer = z.infer<typeof referrerSchema>;

const referrerSchema = z.looseObject({
  mediaType: z.string(),
  digest: z.string(),
  size: z.number(),
  artifactType: z.string().optional(),
});

/** More are no list of signatures and SBOMs, but somebody's attempt to keep the registry busy. */
export const MAX_REFERRERS = 10_000;

const listSchema = z.looseObject({
  schemaVersion: z.literal(2),
  // Registries written in Go send `null` for an empty list.
  manifests: z
    .array(z.unknown())
    .max(MAX_REFERRERS)
    .nullable()
    .transform((manifests) => manifests ?? []),
});

/**
 * Reads a list of referrers: "Upon success, the response MUST be a JSON body with an image index containing a list of
 * descriptors" (OCI distribution specification, "Listing Referrers"). Entry by entry, so that one that is wrong ends
 * it: collecting what is wrong with millions would take longer than any pull.
 *
 * @throws Error when the bytes are no such list.
 */
export function parseReferrers(bytes: Uint8Array): readonly Referrer[] {
  const list = listSchema.safeParse(parseJson(Buffer.from(bytes).toString('utf8')));
  if (!list.success) throw new Error('what it sent is no list of referrers');
  return list.data.manifests.map((entry, index) => {
    const parsed = referrerSchema.safeParse(entry);
    if (!parsed.success) throw new Error(`entry ${index} of its list of referrers is no descriptor`);
    return parsed.data;
  });
}

/** The list as it is answered and kept. "If a query results in no matching referrers, an empty manifest list MUST be returned." */
export function formatReferrers(manifests: readonly Referrer[]): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests }));
}
