import * as z from 'zod';
import { parseJson } from './json.ts';

/** Types that say nothing about a manifest; the manifest's own `mediaType` counts where one of them is told. */
const GENERIC_TYPES: ReadonlySet<string> = new Set([
  '',
  'application/json',
  'application/octet-stream',
  'text/plain',
]);
const MEDIA_TYPE = /^application\/[a-z0-9][a-z0-9!#$&^_.+-]*$/i;

const manifestSchema = z.looseObject({
  schemaVersion: z.number().optional(),
  mediaType: z.string().regex(MEDIA_TYPE).optional(),
});

/**
 * The media type under which a manifest is to be served: as the registry told it, so that nothing is converted.
 *
 * @throws Error when the bytes are no manifest, such as the log-in page of a network.
 */
export function manifestType(bytes: Uint8Array, contentType: string | undefined): string {
  const told = (contentType ?? '').split(';', 1)[0]?.trim() ?? '';
  const parsed = manifestSchema.safeParse(parseJson(Buffer.from(bytes).toString('utf8')));
  if (!parsed.success || (parsed.data.schemaVersion === undefined && parsed.data.mediaType === undefined))
    throw new Error(`what it sent as ${told === '' ? 'a manifest' : told} is no manifest`);
  if (GENERIC_TYPES.has(told)) return parsed.data.mediaType ?? 'application/vnd.oci.image.manifest.v1+json';
  if (!MEDIA_TYPE.test(told)) throw new Error(`"${told.slice(0, 80)}" is no type of a manifest`);
  return told;
}
