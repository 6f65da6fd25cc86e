import type { ByteRange, Write } from './store.ts';

/**
 * Copies a part of a blob; when that fails on the way, `rest` decides what becomes of the bytes that are still
 * wanted: it copies them from elsewhere, or throws the error.
 */
export async function copyWithRest(
  range: ByteRange,
  write: Write,
  copy: (write: Write) => Promise<void>,
  rest: (error: unknown, range: ByteRange) => Promise<void>,
): Promise<void> {
  let { start } = range;
  const counted: Write = async (chunk) => {
    await write(chunk);
    start += chunk.length;
  };
  try {
    await copy(counted);
  } catch (error) {
    await rest(error, { start, end: range.end });
  }
}
