import { algorithmOf, type Digest, hasherFor } from '../oci/digest.ts';
import type { UpstreamBody } from './fill.ts';
import type { ByteRange, Write } from './store.ts';
import { WrongBody } from './wrong-body.ts';

export interface PassThroughOptions {
  readonly digest: Digest;
  readonly fetch: (offset: number, signal: AbortSignal) => Promise<UpstreamBody>;
  readonly range: ByteRange;
  readonly write: Write;
  readonly signal: AbortSignal;
}

/**
 * Copies a part of a blob from the upstream without keeping anything, for when there is nowhere to keep it. The
 * whole blob is read and compared with its digest, and the last byte of the part waits for the outcome.
 *
 * @throws WrongBody, or Error of the upstream.
 */
export async function passThrough({
  digest,
  fetch,
  range,
  write,
  signal,
}: PassThroughOptions): Promise<void> {
  const body = await fetch(0, signal);
  const hasher = hasherFor(algorithmOf(digest));
  let offset = 0;
  let last: Uint8Array | undefined;
  try {
    for await (const chunk of body.chunks) {
      hasher.update(chunk);
      const from = Math.max(range.start - offset, 0);
      const to = Math.min(range.end - offset, chunk.length);
      if (from < to) await write(chunk.subarray(from, to));
      const at = range.end - offset;
      if (at >= 0 && at < chunk.length) last = Uint8Array.of(chunk[at] ?? 0);
      offset += chunk.length;
    }
  } finally {
    body.cancel();
  }
  const found = `${algorithmOf(digest)}:${hasher.digest('hex')}`;
  if (found !== digest) body.distrust();
  if (found !== digest || last === undefined) throw new WrongBody(`the upstream sent ${found} for ${digest}`);
  await write(last);
}
