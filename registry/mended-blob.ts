import { crc32 } from 'node:zlib';
import { beyondGiven, type Compare, copyWithRest } from './rest-of-copy.ts';
import type { ByteRange, StoredBlob, Write } from './store.ts';
import { WrongBody } from './wrong-body.ts';

/** A store that has just failed is waited for no longer than this. */
const AGAIN_MS = 3_000;

/**
 * A stored blob whose rest comes from another reading when the store fails amid it.
 *
 * What the store gave is not compared with the digest, and a reading that is right by itself must not complete a
 * beginning that is damaged. So the beginning is read from the store once more, beside the other reading. To sum up
 * everything that is given would cost half as much again as giving it; a store that is gone altogether is trusted,
 * as it is whenever it does not fail. `onDamage` is told that the two readings differ.
 */
export function mended(
  stored: StoredBlob,
  again: (error: unknown) => Promise<StoredBlob>,
  onDamage: () => void,
): StoredBlob {
  return {
    size: stored.size,
    close: () => stored.close(),
    copyTo: (write, range, signal) =>
      copyWithRest(
        range,
        write,
        (counted) => stored.copyTo(counted, range, signal),
        async (error, given) => {
          if (signal.aborted) throw error;
          const sum = sumOf(stored, { start: range.start, end: given - 1 }, signal);
          const blob = await again(error);
          try {
            if (blob.size !== stored.size)
              throw new WrongBody(`the store has ${stored.size} of ${blob.size} bytes`);
            await blob.copyTo(beyondGiven(range.start, given, comparison(sum, given), write), range, signal);
          } catch (cause) {
            if (cause instanceof WrongBody) onDamage();
            throw cause;
          } finally {
            await blob.close();
            await sum;
          }
        },
      ),
  };
}

/** The checksum of a part; `undefined` when the store fails again, which was told the first time. */
async function sumOf(stored: StoredBlob, part: ByteRange, signal: AbortSignal): Promise<number | undefined> {
  let sum = 0;
  const add: Write = (chunk) => {
    sum = crc32(chunk, sum);
    return Promise.resolve();
  };
  if (part.end < part.start) return sum;
  const waiting = AbortSignal.any([signal, AbortSignal.timeout(AGAIN_MS)]);
  return stored.copyTo(add, part, waiting).then(
    () => sum,
    () => undefined,
  );
}

/** Whether the bytes up to the offset `end` have a checksum shows when the last of them is there. */
function comparison(wanted: Promise<number | undefined>, end: number): Compare {
  let sum = 0;
  return async (chunk, offset) => {
    sum = crc32(chunk, sum);
    if (offset + chunk.length === end && ((await wanted) ?? sum) !== sum)
      throw new WrongBody('what the store gave before it failed is damaged');
  };
}
