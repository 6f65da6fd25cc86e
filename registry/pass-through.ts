import { algorithmOf, type Digest, hasherFor } from '../oci/digest.ts';
import type { ByteRange, Write } from './store.ts';
import { type FetchRest, readUpstream, type UpstreamBody } from './upstream-reading.ts';
import { WrongBody } from './wrong-body.ts';

export interface PassThroughOptions {
  readonly digest: Digest;
  readonly fetch: FetchRest;
  readonly range: ByteRange;
  readonly write: Write;
  readonly signal: AbortSignal;
}

/**
 * Copies a part of a blob from the upstream without keeping anything, for when there is nowhere to keep it. The
 * whole blob is read and compared with its digest, and the last byte of the part waits for the outcome. What an upstream
 * sends a second time is passed over: what was written is what was hashed.
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
  const hasher = hasherFor(algorithmOf(digest));
  const bodies: UpstreamBody[] = [];
  let last: Uint8Array | undefined;
  await readUpstream({
    fetch,
    signal,
    begin: (body) => bodies.push(body),
    take: async (chunk, taken) => {
      hasher.update(chunk);
      const offset = taken - chunk.length;
      const from = Math.max(range.start - offset, 0);
      const to = Math.min(range.end - offset, chunk.length);
      if (from < to) await write(chunk.subarray(from, to));
      const at = range.end - offset;
      if (at >= 0 && at < chunk.length) last = Uint8Array.of(chunk[at] ?? 0);
    },
  });
  const found = `${algorithmOf(digest)}:${hasher.digest('hex')}`;
  if (found !== digest) for (const body of bodies) body.distrust();
  if (found !== digest || last === undefined) throw new WrongBody(`the upstream sent ${found} for ${digest}`);
  await write(last);
}
