import type { StoredBlob } from './store.ts';

/** The bytes of a blob that is small by nature; its caller has looked at its size. @throws Error of the store. */
export async function readSmallBlob(blob: StoredBlob): Promise<Buffer> {
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
