import type { FileHandle } from 'node:fs/promises';
import type { ByteRange, Write } from './store.ts';

/** One buffer a reader, used again for every chunk: allocation is what serving a file costs most. */
const CHUNK_BYTES = 512 * 1024;
/** Buffers of readers that have ended, for the next ones. */
const MAX_IDLE_BUFFERS = 32;
const idle: Buffer[] = [];

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
  const buffer =
    wanted < CHUNK_BYTES
      ? Buffer.allocUnsafeSlow(wanted)
      : (idle.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES));
  let offset = range.start;
  while (offset <= range.end) {
    const limit = Math.min(await readable(offset), range.end + 1);
    signal.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, limit - offset), offset);
    if (bytesRead === 0) throw new Error(`the file ends at byte ${offset}, before byte ${range.end}`);
    await write(buffer.subarray(0, bytesRead));
    offset += bytesRead;
  }
  // Not after a failure: a socket may still hold it then.
  if (buffer.length === CHUNK_BYTES && idle.length < MAX_IDLE_BUFFERS) idle.push(buffer);
}
