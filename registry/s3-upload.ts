import { type FileHandle, open } from 'node:fs/promises';
import { releaseChunk } from './chunk-memory.ts';
import { HashPool } from './hash-pool.ts';

/** A part of a file. */
export interface FilePart {
  /** Beginning with 1. */
  readonly number: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** In hex; computed when it is asked for. */
  readonly sha256: () => Promise<string>;
}

/** An upload in parts, of which nobody sees anything before it is complete. */
export interface PartUpload {
  /** @returns the part's ETag. */
  part(part: FilePart, signal: AbortSignal): Promise<string>;
  /** ETags in the order of their parts. */
  complete(etags: readonly string[]): Promise<void>;
  abort(): Promise<void>;
}

/** S3 wants at least 5 MiB of every part but the last. */
const PART_BYTES = 8 * 1024 * 1024;
/** S3 takes no more. */
const MAX_PARTS = 10_000;
const MAX_AT_ONCE = 4;

/** Uploads files part by part. At most four parts are in memory, however many files are uploaded. */
export class PartUploader {
  readonly #slots = new Slots(MAX_AT_ONCE);
  /** One thread keeps up with any server, and starts when it is needed. */
  readonly #hashes = new HashPool(1);

  /** A file that is no longer than this is one part, and needs no upload in parts. */
  readonly partBytes = PART_BYTES;

  /** Holds the whole file in memory while it is used. */
  async withWhole(path: string, size: number, use: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    await this.#slots.run(async (slot) => {
      await using file = await open(path);
      await slot.with(size, async (buffer) => use(await readPart(file, buffer, 0)));
    });
  }

  /** @throws Error of the first part that failed; the upload is aborted then. */
  async upload(path: string, size: number, begin: () => Promise<PartUpload>): Promise<void> {
    await using file = await open(path);
    const upload = await begin();
    try {
      await upload.complete(await this.#parts(file, size, upload));
    } catch (error) {
      // What cannot be aborted is swept later; why the upload failed is the error that matters.
      await Promise.allSettled([upload.abort()]);
      throw error;
    }
  }

  async #parts(file: FileHandle, size: number, upload: PartUpload): Promise<readonly string[]> {
    const partBytes = Math.max(PART_BYTES, Math.ceil(size / MAX_PARTS));
    const count = Math.ceil(size / partBytes);
    const etags: string[] = [];
    const failed = new AbortController();
    let next = 0;
    const work = async (): Promise<void> => {
      for (let index = next++; index < count; index = next++) {
        const start = index * partBytes;
        const length = Math.min(partBytes, size - start);
        etags[index] = await this.#slots.run(async (slot) => {
          failed.signal.throwIfAborted();
          return slot.with(length, async (buffer) => {
            const bytes = await readPart(file, buffer, start);
            const sha256 = () => this.#hashes.sha256(file.fd, start, length);
            return upload.part({ number: index + 1, bytes, sha256 }, failed.signal);
          });
        });
      }
    };
    const workers = Array.from({ length: Math.min(MAX_AT_ONCE, count) }, () =>
      work().catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    );
    // Every worker has let go of the file before it is closed.
    await Promise.allSettled(workers);
    failed.signal.throwIfAborted();
    return etags;
  }
}

async function readPart(
  file: FileHandle,
  buffer: Buffer<ArrayBuffer>,
  start: number,
): Promise<Buffer<ArrayBuffer>> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, start + done);
    if (bytesRead === 0) throw new Error(`the file ends at byte ${start + done}`);
    done += bytesRead;
  }
  return buffer;
}

/** Lets so many work at once, the others in the order in which they came. */
class Slots {
  readonly #free: Slot[];
  readonly #count: number;
  readonly #waiting: ((slot: Slot) => void)[] = [];

  constructor(count: number) {
    this.#count = count;
    this.#free = Array.from({ length: count }, () => new Slot());
  }

  async run<T>(work: (slot: Slot) => Promise<T>): Promise<T> {
    const slot = this.#free.pop() ?? (await this.#next());
    try {
      return await work(slot);
    } finally {
      const next = this.#waiting.shift();
      if (next !== undefined) next(slot);
      else this.#release(slot);
    }
  }

  async #next(): Promise<Slot> {
    const { promise, resolve } = Promise.withResolvers<Slot>();
    this.#waiting.push(resolve);
    return promise;
  }

  #release(slot: Slot): void {
    this.#free.push(slot);
    if (this.#free.length === this.#count) for (const idle of this.#free) idle.release();
  }
}

/** One place to work at, with memory for one part that is used again for the next. */
class Slot {
  #buffer: Buffer<ArrayBuffer> | undefined;

  /** Lends a buffer of this length. */
  async with<T>(length: number, work: (buffer: Buffer<ArrayBuffer>) => Promise<T>): Promise<T> {
    let buffer = this.#buffer;
    this.#buffer = undefined;
    if (buffer === undefined || buffer.length < length) {
      if (buffer !== undefined) releaseChunk(buffer);
      buffer = Buffer.allocUnsafeSlow(Math.max(length, PART_BYTES));
    }
    const result = await work(buffer.subarray(0, length));
    // Not after a failure: a socket may still hold it then.
    this.#buffer = buffer;
    return result;
  }

  release(): void {
    if (this.#buffer !== undefined) releaseChunk(this.#buffer);
    this.#buffer = undefined;
  }
}
