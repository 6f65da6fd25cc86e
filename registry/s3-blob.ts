import type { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { releaseChunk } from './chunk-memory.ts';
import { S3Failure } from './s3-failure.ts';
import type { ByteRange, StoredBlob, Write } from './store.ts';

/** The bytes of one answer. */
export interface S3Body {
  readonly stream: Readable;
  /** Which bytes of the object they are. */
  readonly range: ByteRange;
}

export interface S3BlobOptions {
  readonly size: number;
  /** What was asked for already, where bytes were; it is read once. */
  readonly opened: S3Body | undefined;
  /** Asks for exactly these bytes of the same version of the object. */
  readonly fetch: (range: ByteRange, signal: AbortSignal) => Promise<Readable>;
  /** For messages. */
  readonly name: string;
}

/** A body that breaks off is asked for again from where it ended, this often without a byte between. */
const MAX_FRUITLESS_TRIES = 3;
const RETRY_PAUSE_MS = 200;
/** A body without a byte for so long has broken off. Not counted while a slow client is what we wait for. */
const BODY_IDLE_MS = 3_000;

/**
 * An object that is read as its bytes are wanted. Opening it has begun to read it already, in the same request
 * that told its size, so an ordinary hit costs no other.
 */
export class S3Blob implements StoredBlob {
  readonly size: number;
  readonly #options: S3BlobOptions;
  #opened: S3Body | undefined;

  constructor(options: S3BlobOptions) {
    this.size = options.size;
    this.#options = options;
    this.#opened = options.opened;
    // It may break while nobody reads it yet; who reads it is told then.
    this.#opened?.stream.on('error', ignore);
  }

  async copyTo(write: Write, range: ByteRange, signal: AbortSignal): Promise<void> {
    let offset = range.start;
    let fruitless = 0;
    let body: Body | undefined;
    const onAbort = (): void => body?.destroy();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (offset <= range.end) {
        signal.throwIfAborted();
        let chunk: Uint8Array;
        try {
          body ??= new Body(await this.#streamOf({ start: offset, end: range.end }, signal));
          chunk = await body.read();
        } catch (cause) {
          body?.destroy();
          body = undefined;
          signal.throwIfAborted();
          fruitless += 1;
          if (
            fruitless >= MAX_FRUITLESS_TRIES ||
            (cause instanceof S3Failure && cause.kind !== 'unreachable')
          )
            throw new Error(`${this.#options.name} broke off at byte ${offset} of ${this.size}`, { cause });
          await pause(fruitless * RETRY_PAUSE_MS, undefined, { signal });
          continue;
        }
        fruitless = 0;
        const wanted = chunk.subarray(0, range.end + 1 - offset);
        await write(wanted);
        offset += wanted.length;
        releaseChunk(chunk);
      }
      await body?.finish();
    } finally {
      signal.removeEventListener('abort', onAbort);
      body?.destroy();
    }
  }

  close(): Promise<void> {
    this.#opened?.stream.destroy();
    this.#opened = undefined;
    return Promise.resolve();
  }

  async #streamOf(range: ByteRange, signal: AbortSignal): Promise<S3Body & { readonly last: number }> {
    const opened = this.#opened;
    if (opened !== undefined && opened.range.start === range.start && opened.range.end >= range.end) {
      this.#opened = undefined;
      return { ...opened, last: range.end };
    }
    return { stream: await this.#options.fetch(range, signal), range, last: range.end };
  }
}

/** Reads a stream chunk by chunk, and cuts it when it stalls. */
class Body {
  readonly #stream: Readable;
  readonly #chunks: AsyncIterator<unknown, void>;
  readonly #isWhole: boolean;
  readonly #timer: NodeJS.Timeout;
  #reading = false;

  constructor({ stream, range, last }: S3Body & { readonly last: number }) {
    this.#stream = stream.on('error', ignore);
    this.#chunks = stream[Symbol.asyncIterator]();
    this.#isWhole = range.end === last;
    this.#timer = setTimeout(() => {
      if (this.#reading) stream.destroy(new Error(`no byte came for ${BODY_IDLE_MS / 1000} s`));
    }, BODY_IDLE_MS);
  }

  /** @throws Error when the stream breaks, stalls or ends. */
  async read(): Promise<Uint8Array> {
    this.#reading = true;
    this.#timer.refresh();
    const next = await this.#chunks.next();
    this.#reading = false;
    if (next.done === true) throw new Error('the body ended early');
    if (!(next.value instanceof Uint8Array)) throw new Error('the body holds no bytes');
    return next.value;
  }

  /** When all that was wanted is read: a body that is at its end leaves its connection to the next request. */
  async finish(): Promise<void> {
    if (this.#isWhole) {
      this.#reading = true;
      this.#timer.refresh();
      // Nothing that can fail now is missing.
      await this.#chunks.next().catch(ignore);
    }
    this.destroy();
  }

  destroy(): void {
    clearTimeout(this.#timer);
    this.#stream.destroy();
  }
}

/** For an error that the reader is told in another way. */
function ignore(): void {}
