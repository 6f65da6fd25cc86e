import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Algorithm, Digest } from '../oci/digest.ts';
import { codeOf } from '../process/file-problem.ts';
import { releaseChunk } from './chunk-memory.ts';
import { copyFile } from './file-copy.ts';
import type { FileHash, HashPool } from './hash-pool.ts';
import type { WaitingBytes } from './spool-budget.ts';
import type { ByteRange, Write } from './store.ts';

/** Told apart from whatever else is in a directory that others use too. */
const SPOOL_FILE = /^weir-[0-9a-f-]{36}\.spool$/;
/** Small chunks wait for others, so that one write, one read and one wake-up of each reader serves them together. */
const GATHER_BYTES = 256 * 1024;
/** A slow upstream's bytes are not held back for longer than this. */
const GATHER_MS = 4;
export interface SpoolOptions {
  readonly directory: string;
  readonly hashes: HashPool;
  readonly algorithm: Algorithm;
  /** Shared by all spools. */
  readonly waiting: WaitingBytes;
  /** Called whenever {@link Spool.written} has grown. */
  readonly onWritten: () => void;
}

/** The local disk takes no more, as it is full, fails or may not be written: what needs it has to do without. */
export class SpoolFull extends Error {
  override readonly name = 'SpoolFull';
}

/**
 * A local file that takes a body in, is hashed on another thread as it grows, and can be read while it does.
 * Chunks that arrive while the disk is busy are written together by one call.
 */
export class Spool {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #hash: FileHash;
  readonly #waiting: WaitingBytes;
  readonly #onWritten: () => void;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #taken = 0;
  #written = 0;
  #writing: Promise<void> | undefined;
  #gathered: (() => void) | undefined;
  /** Told when some of what waited has been written. */
  #onRoom: (() => void) | undefined;
  #flushing = false;
  #error: Error | undefined;

  private constructor(path: string, file: FileHandle, hash: FileHash, options: SpoolOptions) {
    this.path = path;
    this.#file = file;
    this.#hash = hash;
    this.#waiting = options.waiting;
    this.#onWritten = options.onWritten;
  }

  /** @throws SpoolFull, or Error of the file system. */
  static async open(options: SpoolOptions): Promise<Spool> {
    const path = join(options.directory, `weir-${randomUUID()}.spool`);
    try {
      const file = await openAnew(path);
      return new Spool(path, file, options.hashes.follow(file.fd, options.algorithm), options);
    } catch (error) {
      throw asSpoolFull(error);
    }
  }

  /** Bytes that can be read. */
  get written(): number {
    return this.#written;
  }

  /** Takes a chunk; resolves when the next one may come. @throws as {@link flush} */
  async append(chunk: Uint8Array): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    this.#queue.push(chunk);
    this.#queued += chunk.length;
    this.#taken += chunk.length;
    this.#waiting.add(chunk.length);
    this.#writing ??= this.#drain();
    if (this.#queued >= GATHER_BYTES) this.#gathered?.();
    if (!this.#waiting.isEnough(this.#taken - this.#written)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onRoom = resolve;
    this.#gathered?.();
    await promise;
  }

  /** Resolves when everything that was taken can be read. @throws SpoolFull, or Error of the file system. */
  async flush(): Promise<void> {
    this.#flushing = true;
    this.#gathered?.();
    await this.#writing;
    this.#flushing = false;
    if (this.#error !== undefined) throw this.#error;
  }

  /** The digest of everything; nothing may be appended after that. */
  async digest(): Promise<Digest> {
    await this.flush();
    return this.#hash.finish(this.#written);
  }

  /** @see copyFile */
  async copyTo(
    range: ByteRange,
    write: Write,
    readable: (offset: number) => Promise<number>,
    signal: AbortSignal,
  ): Promise<void> {
    await copyFile(this.#file, range, write, readable, signal);
  }

  /** Whether these are the bytes from the offset on. */
  async holds(bytes: Uint8Array, offset: number): Promise<boolean> {
    const held = Buffer.allocUnsafe(bytes.length);
    let length = 0;
    while (length < held.length) {
      const { bytesRead } = await this.#file.read(held, length, held.length - length, offset + length);
      if (bytesRead === 0) return false;
      length += bytesRead;
    }
    return held.equals(bytes);
  }

  /** Shows those who sweep the directory, other processes among them, that the file is in use. */
  async touch(): Promise<void> {
    const now = new Date();
    await this.#file.utimes(now, now);
  }

  /** Removes the file's name; what has it open can read on. */
  async unlink(): Promise<void> {
    await rm(this.path, { force: true });
  }

  async close(): Promise<void> {
    this.#gathered?.();
    await this.#writing;
    await this.#hash.release();
    await this.#file.close();
  }

  /** Resolves when a write is worth it. */
  async #gather(): Promise<void> {
    if (this.#flushing || this.#queued >= GATHER_BYTES) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gathered = resolve;
    const late = setTimeout(resolve, GATHER_MS);
    await promise;
    clearTimeout(late);
    this.#gathered = undefined;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const chunks = this.#queue;
        const length = this.#queued;
        this.#queue = [];
        this.#queued = 0;
        await writeFully(this.#file, chunks, length, this.#written);
        this.#written += length;
        this.#waiting.remove(length);
        for (const chunk of chunks) releaseChunk(chunk);
        this.#onRoom?.();
        this.#hash.grown(this.#written);
        this.#onWritten();
        await this.#gather();
      }
    } catch (error) {
      this.#error = asSpoolFull(error);
      this.#queue = [];
      this.#queued = 0;
      this.#waiting.remove(this.#taken - this.#written);
      this.#onRoom?.();
    } finally {
      this.#writing = undefined;
    }
  }
}

async function writeFully(
  file: FileHandle,
  chunks: readonly Uint8Array[],
  length: number,
  position: number,
): Promise<void> {
  const { bytesWritten } = await file.writev(chunks, position);
  if (bytesWritten === length) return;
  // A short write says that the disk is full, which the next one tells with its code.
  const rest = Buffer.concat(chunks, length).subarray(bytesWritten);
  let done = 0;
  while (done < rest.length)
    done += (await file.write(rest, done, rest.length - done, position + bytesWritten + done)).bytesWritten;
}

/** Whatever the system says of the disk: no failure of it keeps a blob from being streamed through. */
function asSpoolFull(error: unknown): Error {
  if (error instanceof Error && 'syscall' in error)
    return new SpoolFull(`the spool directory takes no more: ${error.message}`, { cause: error });
  return error instanceof Error ? error : new Error(String(error));
}

/** The directory may have been cleared away with everything in it. */
async function openAnew(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx+', 0o600);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    await mkdir(dirname(path), { recursive: true });
    return open(path, 'wx+', 0o600);
  }
}

/** Who holds a file touches it more often than that; what is older was left by a killed process. */
const ABANDONED_AFTER_MS = 3_600_000;

/** Removes spool files that nobody uses any more, and nothing else. @throws Error when some could not be removed. */
export async function sweepSpool(directory: string): Promise<void> {
  const oldest = Date.now() - ABANDONED_AFTER_MS;
  const failures: unknown[] = [];
  for (const name of await readdir(directory)) {
    if (!SPOOL_FILE.test(name)) continue;
    const path = join(directory, name);
    try {
      const found = await stat(path);
      if (found.isFile() && found.mtimeMs < oldest) await rm(path, { force: true });
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') failures.push(error);
    }
  }
  if (failures.length > 0)
    throw new AggregateError(failures, `spool files in ${directory} could not be removed`);
}
