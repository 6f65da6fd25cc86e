import type { ByteRange, Write } from './store.ts';

/** Compares bytes that came a second time with what was given from that offset on. @throws WrongBody */
export type Compare = (chunk: Uint8Array, offset: number) => Promise<void>;

/**
 * Copies a part of a blob; when that fails on the way, `rest` decides what becomes of the bytes that are still
 * wanted: it copies the part anew from elsewhere, or throws the error. It is told where what was given ends.
 */
export async function copyWithRest(
  range: ByteRange,
  write: Write,
  copy: (write: Write) => Promise<void>,
  rest: (error: unknown, given: number) => Promise<void>,
): Promise<void> {
  let given = range.start;
  const counted: Write = async (chunk) => {
    await write(chunk);
    given += chunk.length;
  };
  try {
    await copy(counted);
  } catch (error) {
    await rest(error, given);
  }
}

/**
 * Takes a part of a blob from its start on although the bytes before `given` went out already: those are compared, the
 * others written. What comes from elsewhere may be right by itself and no continuation of what the client has.
 */
export function beyondGiven(start: number, given: number, compare: Compare, write: Write): Write {
  let offset = start;
  return async (chunk) => {
    const known = chunk.subarray(0, Math.max(0, given - offset));
    if (known.length > 0) await compare(known, offset);
    offset += chunk.length;
    if (known.length < chunk.length) await write(chunk.subarray(known.length));
  };
}
