import type { FileHandle } from 'node:fs/promises';
import type { ByteRange, Write } from './store.ts';

/** One buffer a reader, used again for every chunk: allocation is what serving a file costs most. */
const CHUNK_BYTES = 512 * 1024;
/** With more readers than this, new ones do with smaller buffers, so that thousands of them fit into memory. */
const MAX_LARGE_BUFFERS = 96;
const SMALL_CHUNK_BYTES = 64 * 1024;
/** Buffers of readers that have ended, for the next ones. */
const MAX_IDLE_BUFFERS = 32;
const idle: Buffer[] = [];
let readers = 0;

/**
 * Copies a part of a file. `readable` answers how far the file may be read, waiting while that is not beyond the
 * given offset; so the same loop serves a file that is complete and one that is still growing.
 *
 * @throws Error when the file ends early, reading fails or the signal aborts.
 */
export async function copyFile(
  file: FileHandle,
  range: ByteRange,
  write: Write,
  readable: (offset: number) => Promise<number>,
  signal: AbortSignal,
): Promise<void> {
  const wanted = range.end - range.start + 1;
  const chunk = readers < MAX_LARGE_BUFFERS ? CHUNK_BYTES : SMALL_CHUNK_BYTES;
  const buffer =
    wanted < chunk || chunk === SMALL_CHUNK_BYTES
      ? Buffer.allocUnsafeSlow(Math.min(wanted, chunk))
      : (idle.pop() ?? Buffer.allocUnsafeSlow(chunk));
  let offset = range.start;
  readers += 1;
  try {
    while (offset <= range.end) {
      const limit = Math.min(await readable(offset), range.end + 1);
      signal.throwIfAborted();
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, limit - offset), offset);
      if (bytesRead === 0) throw new Error(`the file ends at byte ${offset}, before byte ${range.end}`);
      await write(buffer.subarray(0, bytesRead));
      offset += bytesRead;
    }
  } finally {
    readers -= 1;
  }
  // Not after a failure: a socket may still hold it then.
  if (buffer.length === CHUNK_BYTES && idle.length < MAX_IDLE_BUFFERS) idle.push(buffer);
}
