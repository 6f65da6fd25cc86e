import { crc32 } from 'node:zlib';
import { beyondGiven, type Compare, copyWithRest } from './rest-of-copy.ts';
import type { StoredBlob, Write } from './store.ts';
import { WrongBody } from './wrong-body.ts';

/**
 * A stored blob whose rest comes from another reading when the store fails amid it.
 *
 * What the store gave is not compared with the digest. A checksum of it, which costs next to nothing, keeps a
 * reading that is right by itself from completing a beginning that is damaged.
 */
export function mended(stored: StoredBlob, again: (error: unknown) => Promise<StoredBlob>): StoredBlob {
  return {
    size: stored.size,
    close: () => stored.close(),
    copyTo: async (write, range, signal) => {
      let sum = 0;
      const summed: Write = async (chunk) => {
        await write(chunk);
        sum = crc32(chunk, sum);
      };
      await copyWithRest(
        range,
        summed,
        (counted) => stored.copyTo(counted, range, signal),
        async (error, given) => {
          if (signal.aborted) throw error;
          const compare = comparison(sum, given);
          const blob = await again(error);
          try {
            if (blob.size !== stored.size)
              throw new WrongBody(`the store has ${stored.size} of ${blob.size} bytes`);
            await blob.copyTo(beyondGiven(range.start, given, compare, write), range, signal);
          } finally {
            await blob.close();
          }
        },
      );
    },
  };
}

/** Whether the bytes up to the offset `end` have this checksum shows when the last of them is there. */
function comparison(wanted: number, end: number): Compare {
  let sum = 0;
  return (chunk, offset) => {
    sum = crc32(chunk, sum);
    return offset + chunk.length === end && sum !== wanted
      ? Promise.reject(new WrongBody('what the store gave before it failed is damaged'))
      : Promise.resolve();
  };
}
