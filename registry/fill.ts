import { randomUUID } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { algorithmOf, type Digest, hasherFor } from '../oci/digest.ts';
import { copyFile } from './file-copy.ts';
import type { ByteRange, StoredBlob, Write } from './store.ts';

/** The bytes of a blob from an offset on, as the upstream sends them. */
export interface UpstreamBody {
  /** Of the whole blob; `undefined` when the upstream does not say. */
  readonly size: number | undefined;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export interface FillOptions {
  readonly digest: Digest;
  /** Directory of the spool file. */
  readonly directory: string;
  /** Asks the upstream for the blob from this offset on; called again, with a later one, when a body breaks off. */
  readonly fetch: (offset: number, signal: AbortSignal) => Promise<UpstreamBody>;
  /** Takes the spool file in, after its digest matched and while readers still follow it. */
  readonly keep: (path: string) => Promise<void>;
  /** The blob is asked for no longer than this. */
  readonly signal: AbortSignal;
}

/** A body that breaks off is asked for again from where it ended, this often without a byte between. */
const MAX_FRUITLESS_TRIES = 3;
const RETRY_PAUSE_MS = 300;

/**
 * One reading of a blob from its upstream, which spools to a local file and feeds any number of readers.
 * It does not depend on any of them: a client that leaves stops nothing.
 *
 * Until the digest has matched, the last byte is withheld from every reader, so that no client ever completes a
 * body that is wrong. When it does not match, their connections are cut and nothing is kept.
 */
export class Fill {
  readonly #options: FillOptions;
  readonly #path: string;
  #file: FileHandle | undefined;
  #size: number | undefined;
  #written = 0;
  #verified = false;
  #error: Error | undefined;
  #readers = 0;
  #finished = false;
  #progress = Promise.withResolvers<void>();
  #started = false;
  /** Settles when the blob is in the store, or the fill has failed. Whoever starts a fill handles it. */
  readonly done: Promise<void>;

  constructor(options: FillOptions) {
    this.#options = options;
    this.#path = join(options.directory, `${randomUUID()}.spool`);
    this.done = this.#run();
  }

  /** Whether a new reader may join. After that the blob is in the store, or it has failed. */
  get joinable(): boolean {
    return this.#error === undefined && !this.#finished;
  }

  /**
   * A reader, once the upstream has begun to answer. When it did not tell the blob's size, that is once the
   * blob is complete: no other moment knows where a body ends.
   *
   * @throws Error of the upstream.
   */
  async reader(): Promise<StoredBlob> {
    this.#readers += 1;
    try {
      // An empty body has no last byte to withhold, so it waits as well.
      while (!this.#started || this.#size === undefined || (this.#size === 0 && !this.#verified))
        await this.#more();
      const size = this.#size;
      return {
        size,
        copyTo: (write, range, signal) => this.#copyTo(write, range, signal),
        close: () => this.#leave(),
      };
    } catch (error) {
      await this.#leave();
      throw error;
    }
  }

  async #copyTo(write: Write, range: ByteRange, signal: AbortSignal): Promise<void> {
    if (this.#file === undefined) throw new Error('the fill has ended');
    await copyFile(this.#file, range, write, (offset) => this.#readable(offset), signal);
  }

  async #leave(): Promise<void> {
    this.#readers -= 1;
    await this.#release();
  }

  /** How far readers may read; waits until that is beyond the offset. */
  async #readable(offset: number): Promise<number> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const limit = this.#verified ? this.#written : this.#written - 1;
      if (limit > offset) return limit;
      await this.#more();
    }
  }

  /** Resolves at the next progress; throws when the fill has failed. */
  async #more(): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    await this.#progress.promise;
  }

  #advance(): void {
    this.#progress.resolve();
    this.#progress = Promise.withResolvers();
  }

  async #run(): Promise<void> {
    try {
      this.#file = await open(this.#path, 'wx+');
      await this.#spool(this.#file);
      this.#verified = true;
      this.#advance();
      await this.#options.keep(this.#path);
    } catch (error) {
      // Readers of verified bytes are served to the end, whatever becomes of the store.
      if (!this.#verified) this.#error = error instanceof Error ? error : new Error(String(error));
      this.#advance();
      throw error;
    } finally {
      this.#finished = true;
      await rm(this.#path, { force: true });
      await this.#release();
    }
  }

  async #spool(file: FileHandle): Promise<void> {
    const { digest, signal } = this.#options;
    const hasher = hasherFor(algorithmOf(digest));
    let fruitless = 0;
    for (;;) {
      const before = this.#written;
      try {
        const body = await this.#options.fetch(this.#written, signal);
        this.#begin(body);
        for await (const chunk of body.chunks) {
          hasher.update(chunk);
          await writeAll(file, chunk, this.#written);
          this.#written += chunk.length;
          this.#refuseExcess();
          this.#advance();
        }
        if (this.#size !== undefined && this.#written < this.#size)
          throw new Error(`the body ended after ${this.#written} of ${this.#size} bytes`);
        break;
      } catch (error) {
        fruitless = this.#written > before ? 0 : fruitless + 1;
        if (before === 0 && this.#written === 0) throw error;
        if (signal.aborted || fruitless >= MAX_FRUITLESS_TRIES || error instanceof WrongBody) throw error;
        await setTimeout(fruitless * RETRY_PAUSE_MS, undefined, { signal });
      }
    }
    const found = `${algorithmOf(digest)}:${hasher.digest('hex')}`;
    if (found !== digest) throw new WrongBody(`the upstream sent ${found} for ${digest}`);
    this.#size = this.#written;
  }

  #begin(body: UpstreamBody): void {
    if (this.#size !== undefined && body.size !== undefined && body.size !== this.#size)
      throw new WrongBody(`the upstream now tells ${body.size} bytes, before it told ${this.#size}`);
    this.#size ??= body.size;
    this.#started = true;
    this.#advance();
  }

  #refuseExcess(): void {
    if (this.#size !== undefined && this.#written > this.#size)
      throw new WrongBody(`the body is longer than the ${this.#size} bytes that were told`);
  }

  async #release(): Promise<void> {
    if (!this.#finished || this.#readers > 0) return;
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

/** What came is not what was asked for: asking for the rest of it is of no use. */
export class WrongBody extends Error {
  override readonly name = 'WrongBody';
}

async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < chunk.length) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}
