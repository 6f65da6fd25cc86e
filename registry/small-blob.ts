import type { Logger } from 'pino';
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts';
import type { Store, StoredBlob } from './store.ts';
import type { StoreTrouble } from './store-trouble.ts';

/** The bytes of a blob that is small by nature; its caller has looked at its size. @throws Error of the store. */
async function readSmallBlob(blob: StoredBlob): Promise<Buffer> {
  const bytes = Buffer.alloc(blob.size);
  if (blob.size === 0) return bytes;
  let length = 0;
  const write = (chunk: Uint8Array): Promise<void> => {
    bytes.set(chunk, length);
    length += chunk.length;
    return Promise.resolve();
  };
  await blob.copyTo(write, { start: 0, end: blob.size - 1 }, new AbortController().signal);
  return bytes;
}

/**
 * The bytes of a stored blob of at most `limit` bytes; `undefined` when it is not there, or damaged. A damaged one is
 * removed, since a store does not take again what it has.
 */
export async function readIntact(
  digest: Digest,
  limit: number,
  { store, log, trouble }: { readonly store: Store; readonly log: Logger; readonly trouble: StoreTrouble },
): Promise<Buffer | undefined> {
  const blob = await trouble.read(store.open(digest));
  if (blob === undefined) return undefined;
  try {
    const bytes = blob.size > limit ? Buffer.alloc(0) : await trouble.read(readSmallBlob(blob));
    if (bytes === undefined || digestOf(bytes, algorithmOf(digest)) === digest) return bytes;
  } finally {
    await blob.close();
  }
  log.error({ digest }, 'what is stored is damaged; the upstream is asked for it again');
  await trouble.read(store.remove(digest).then(() => undefined));
  return undefined;
}
