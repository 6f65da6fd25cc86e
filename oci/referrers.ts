import { z } from 'zod';
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

const listSchema = z.looseObject({
  schemaVersion: z.literal(2),
  // Registries written in Go send `null` for an empty list.
  manifests: z
    .array(referrerSchema)
    .nullable()
    .transform((manifests) => manifests ?? []),
});

/**
 * Reads a list of referrers: "Upon success, the response MUST be a JSON body with an image index containing a list of
 * descriptors" (OCI distribution specification, "Listing Referrers").
 *
 * @throws Error when the bytes are no such list.
 */
export function parseReferrers(bytes: Uint8Array): readonly Referrer[] {
  const parsed = listSchema.safeParse(parseJson(Buffer.from(bytes).toString('utf8')));
  if (!parsed.success) throw new Error('what it sent is no list of referrers', { cause: parsed.error });
  return parsed.data.manifests;
}

/** The list as it is answered and kept. "If a query results in no matching referrers, an empty manifest list MUST be returned." */
export function formatReferrers(manifests: readonly Referrer[]): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests }));
}
