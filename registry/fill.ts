import { algorithmOf, type Digest } from '../oci/digest.ts';
import type { HashPool } from './hash-pool.ts';
import { keepTrying } from './keep-trying.ts';
import { beyondGiven, type Compare, copyWithRest } from './rest-of-copy.ts';
import { Spool, SpoolFull } from './spool.ts';
import type { SpoolAccount, SpoolBudget } from './spool-budget.ts';
import type { ByteRange, StoredBlob, Write } from './store.ts';
import { type FetchRest, readUpstream, type UpstreamBody } from './upstream-reading.ts';
import { WrongBody } from './wrong-body.ts';

export interface FillOptions {
  readonly digest: Digest;
  /** Directory of the spool file. */
  readonly directory: string;
  readonly budget: SpoolBudget;
  readonly hashes: HashPool;
  /** Asks the upstream for the blob, and again for its rest when a body breaks off. */
  readonly fetch: FetchRest;
  /** Takes the spool file in, after its digest matched and while readers still follow it. */
  readonly keep: (path: string, size: number) => Promise<void>;
  /** Serves a reader whose fill the local disk has failed. */
  readonly without: (range: ByteRange, write: Write, signal: AbortSignal) => Promise<void>;
  /** Is told when the store did not take the blob; it is offered again after `pause` milliseconds. */
  readonly onKeepFailed: (error: unknown, pause: number) => void;
  /** Ends the fill. */
  readonly signal: AbortSignal;
}

/**
 * One reading of a blob from its upstream, which spools to a local file and feeds any number of readers.
 * It does not depend on any of them: a client that leaves stops nothing.
 *
 * Until the digest has matched, the last byte is withheld from every reader, so that no client ever completes a
 * whole body that is wrong; a Range that ends before is unverified by nature. When the digest does not match, their
 * connections are cut and nothing is kept.
 */
export class Fill {
  readonly #options: FillOptions;
  #spool: Spool | undefined;
  #account: SpoolAccount | undefined;
  #size: number | undefined;
  #started = false;
  #verified = false;
  #finished = false;
  #error: Error | undefined;
  #readers = 0;
  /** Those that the bytes came from. */
  readonly #bodies: UpstreamBody[] = [];
  #progress = Promise.withResolvers<void>();
  /** Settles when the blob is in the store, or the fill has failed. Whoever starts a fill handles it. */
  readonly done: Promise<void>;

  constructor(options: FillOptions) {
    this.#options = options;
    this.done = this.#run();
  }

  /** Whether a new reader may join. After that the blob is in the store, or it has failed. */
  get joinable(): boolean {
    return this.#error === undefined && !this.#finished;
  }

  /** Of the blob, once its digest has matched; it may not be in the store yet. */
  get verifiedSize(): number | undefined {
    return this.#verified ? this.#size : undefined;
  }

  /**
   * A reader, once the upstream has begun to answer. When it did not tell the blob's size, that is once the
   * blob is complete: no other moment knows where a body ends.
   *
   * @throws Error of the upstream; SpoolFull when there is no room for the blob.
   */
  async reader(): Promise<StoredBlob> {
    this.#readers += 1;
    try {
      // An empty body has no last byte to withhold, so it waits as well.
      while (!this.#started || this.#size === undefined || (this.#size === 0 && !this.#verified))
        await this.#more();
      return {
        size: this.#size,
        copyTo: (write, range, signal) => this.#copyTo(write, range, signal),
        close: () => this.#leave(),
      };
    } catch (error) {
      await this.#leave();
      throw error;
    }
  }

  /** Keeps the spool file from being swept, however long the store takes to have it. */
  async touch(): Promise<void> {
    await this.#spool?.touch();
  }

  async #copyTo(write: Write, range: ByteRange, signal: AbortSignal): Promise<void> {
    const spool = this.#spool;
    if (spool === undefined) throw new Error('the fill has ended');
    await copyWithRest(
      range,
      write,
      (counted) => spool.copyTo(range, counted, (offset) => this.#readable(offset), signal),
      async (error, given) => {
        if (!(error instanceof SpoolFull) || signal.aborted) throw error;
        const compare: Compare = (chunk, offset) => this.#compare(spool, chunk, offset);
        await this.#options.without(range, beyondGiven(range.start, given, compare, write), signal);
      },
    );
  }

  async #leave(): Promise<void> {
    this.#readers -= 1;
    await this.#release();
  }

  /** How far readers may read; waits until that is beyond the offset. */
  async #readable(offset: number): Promise<number> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const written = this.#spool?.written ?? 0;
      const limit = this.#verified ? written : written - 1;
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
    const { digest, directory, hashes, budget } = this.#options;
    this.#account = budget.open();
    try {
      const spool = await Spool.open({
        directory,
        hashes,
        algorithm: algorithmOf(digest),
        waiting: budget.waiting,
        onWritten: () => this.#advance(),
      });
      this.#spool = spool;
      await this.#read(spool, this.#account);
      const found = await spool.digest();
      if (found !== digest) throw new WrongBody(`the upstream sent ${found} for ${digest}`);
      this.#size = spool.written;
      this.#verified = true;
      this.#advance();
      const { keep, onKeepFailed, signal } = this.#options;
      await keepTrying(() => keep(spool.path, spool.written), onKeepFailed, signal);
    } catch (error) {
      if (error instanceof WrongBody) for (const body of this.#bodies) body.distrust();
      // Readers of verified bytes are served to the end, whatever becomes of the store.
      if (!this.#verified) this.#error = error instanceof Error ? error : new Error(String(error));
      this.#advance();
      throw error;
    } finally {
      this.#finished = true;
      await this.#spool?.unlink();
      await this.#release();
    }
  }

  async #read(spool: Spool, account: SpoolAccount): Promise<void> {
    const { fetch, signal } = this.#options;
    await readUpstream({
      fetch,
      signal,
      begin: (body, size) => {
        this.#bodies.push(body);
        this.#size = size;
        this.#started = true;
        this.#advance();
        account.reserve(size ?? 0);
      },
      take: async (chunk, taken) => {
        account.cover(taken);
        await spool.append(chunk);
      },
      compare: (chunk, offset) => this.#compare(spool, chunk, offset),
      // Without this, bytes that still wait for the disk would be counted and lost when it fails.
      pause: () => spool.flush(),
    });
  }

  /** What was given to readers, or may be, is the beginning of all that follows. @throws WrongBody */
  async #compare(spool: Spool, chunk: Uint8Array, offset: number): Promise<void> {
    if (!(await spool.holds(chunk, offset)))
      throw new WrongBody(`the upstream now sends other bytes than before for ${this.#options.digest}`);
  }

  async #release(): Promise<void> {
    if (!this.#finished || this.#readers > 0) return;
    const spool = this.#spool;
    this.#spool = undefined;
    await spool?.close();
    // Readers that are slow keep the bytes on the disk, although they have no name there any more.
    this.#account?.close();
  }
}
