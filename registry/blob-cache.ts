import type { Logger } from 'pino';
import type { Digest } from '../oci/digest.ts';
import { BlobLinks } from './blob-links.ts';
import { type Early, EarlyQuestions } from './early-questions.ts';
import { Fill } from './fill.ts';
import { HashPool } from './hash-pool.ts';
import { mended } from './mended-blob.ts';
import { passThrough } from './pass-through.ts';
import { SpoolFull, sweepSpool } from './spool.ts';
import { SpoolBudget } from './spool-budget.ts';
import type { AskedRange, ByteRange, Link, Store, StoredBlob, Write } from './store.ts';
import { StoreTrouble } from './store-trouble.ts';
import { behindAnswers } from './store-writes.ts';
import { nameOf, type Target } from './target.ts';
import type { Manifest, UpstreamClient } from './upstream.ts';
import { isOfHeadAlone, unavailable } from './upstream-failure.ts';
import { type FetchRest, WHOLE } from './upstream-reading.ts';

const SWEEP_MS = 600_000;
/** An image's configuration, and layers that cost more to store than to fetch. */
const SMALL_BYTES = 256 * 1024;

/**
 * - `hit`: from the store;
 * - `miss`: from an upstream reading that this request began or joined, and that is stored;
 * - `unstored`: from the upstream, and not kept.
 */
export type BlobOrigin = 'hit' | 'miss' | 'unstored';

export interface BlobAnswer {
  readonly blob: StoredBlob;
  readonly origin: BlobOrigin;
}

export interface BlobCacheOptions {
  readonly store: Store;
  readonly upstream: UpstreamClient;
  /** Directory for spool files. */
  readonly spoolDirectory: string;
  /** Bytes that blobs on their way may take there together. */
  readonly spoolLimit: number;
  readonly log: Logger;
  /** Ends fills that still run. */
  readonly signal: AbortSignal;
}

interface RunningFill {
  readonly fill: Fill;
  /** Of the repository under which the upstream is asked. */
  readonly name: string;
}

/** Blobs from the store, or from the one reading of each that is in progress. */
export class BlobCache {
  readonly #options: BlobCacheOptions;
  /** By host and digest: what another host sends is another matter until its digest has matched. */
  readonly #fills = new Map<string, RunningFill>();
  readonly #links: BlobLinks;
  /** What is being done to the store behind the answers, or will be once a fill has matched. */
  readonly #behind = new Set<Promise<void>>();
  readonly #early = new EarlyQuestions();
  readonly #hashes = new HashPool();
  readonly #budget: SpoolBudget;
  readonly #sweeping: NodeJS.Timeout;

  constructor(options: BlobCacheOptions) {
    this.#options = options;
    this.#links = new BlobLinks(options.store);
    this.#budget = new SpoolBudget(options.spoolLimit);
    this.#sweep();
    this.#sweeping = setInterval(() => this.#sweep(), SWEEP_MS);
    this.#sweeping.unref();
  }

  /** How many blobs are being read from upstreams. */
  get fills(): number {
    return this.#fills.size;
  }

  /** Takes note of a manifest that was just fetched: its blobs are likely asked for next. */
  expect(target: Target, manifest: Manifest): void {
    this.#early.expect(target, manifest);
  }

  /**
   * The blob, to be closed by the caller. One that another repository brought in is handed out only after the
   * upstream has confirmed that this repository has it too. `asked` is the range that the client wants, as far as
   * it can be told without the size.
   *
   * @throws UpstreamFailure; StoreTroubleError when the store failed as well.
   */
  async open(target: Target, digest: Digest, asked?: AskedRange): Promise<BlobAnswer> {
    const { log, upstream, signal } = this.#options;
    const trouble = new StoreTrouble(log);
    const early = this.#links.knows(target, digest)
      ? undefined
      : this.#early.ask(target, digest, (letGo) =>
          upstream.blob(target, digest, WHOLE, AbortSignal.any([signal, letGo])),
        );
    try {
      return await trouble.around(() => this.#open({ target, digest, asked, trouble, early }));
    } finally {
      early?.leave();
    }
  }

  async #open(wanted: Wanted): Promise<BlobAnswer> {
    const { target, digest, trouble, early } = wanted;
    const known = await this.#links.find(target, digest, trouble);
    if (known !== undefined) return this.#openLinked(wanted, known);
    const running = this.#running(target, digest);
    if (running !== undefined && running.name !== nameOf(target)) {
      await this.#confirm(target, digest, early);
      if (!running.fill.joinable) return this.#open(wanted);
      // Nothing is noted of the host before its bytes have matched.
      this.#link(target, digest, linkOf(running.fill));
      return this.#join(running.fill, target, digest);
    }
    const link = running === undefined ? await this.#links.ofHost(target, digest, trouble) : undefined;
    if (link !== undefined) {
      await this.#confirm(target, digest, early);
      this.#link(target, digest, Promise.resolve(link));
      return this.#openLinked(wanted, link);
    }
    // Somebody else may have begun to read it meanwhile.
    if (this.#running(target, digest) !== running) return this.#open(wanted);
    return this.#join(running?.fill ?? this.#start(wanted), target, digest);
  }

  async #openLinked(wanted: Wanted, link: Link): Promise<BlobAnswer> {
    const { target, digest, asked, trouble } = wanted;
    const { store, log } = this.#options;
    const running = this.#running(target, digest);
    if (running !== undefined) return this.#join(running.fill, target, digest);
    const stored = await trouble.read(store.open(digest, asked));
    if (stored !== undefined && (link.size ?? stored.size) === stored.size)
      return { blob: this.#mended(stored, wanted), origin: 'hit' };
    if (stored !== undefined) {
      log.error(
        { digest, size: stored.size, wanted: link.size },
        'a stored blob is damaged; it is fetched again',
      );
      await stored.close();
      await trouble.read(store.remove(digest).then(() => undefined));
    }
    return this.#join(this.#running(target, digest)?.fill ?? this.#start(wanted), target, digest);
  }

  /** Brings the blob into the store, where it is not. @throws as {@link open} */
  async fetch(target: Target, digest: Digest): Promise<void> {
    if ((await this.size(target, digest)).origin === 'hit') return;
    const { blob } = await this.open(target, digest);
    await blob.close();
    await this.#running(target, digest)?.fill.done;
  }

  /** The size of the blob, without fetching it; `undefined` in it when the upstream does not tell. @throws as {@link open} */
  async size(target: Target, digest: Digest): Promise<{ size: number | undefined; origin: BlobOrigin }> {
    const { store, log } = this.#options;
    const running = this.#running(target, digest);
    const read = running?.name === nameOf(target) ? running.fill.verifiedSize : undefined;
    if (read !== undefined) return { size: read, origin: 'miss' };
    const trouble = new StoreTrouble(log);
    const link = await this.#links.find(target, digest, trouble);
    if (link !== undefined) {
      const stored = await trouble.read(store.stat(digest));
      if (stored !== undefined && (link.size ?? stored.size) === stored.size)
        return { size: stored.size, origin: 'hit' };
    }
    const { size } = await trouble.around(() => this.#ask(target, digest));
    return { size, origin: 'unstored' };
  }

  /** Resolves when no fill uses the spool directory any more; the signal is to be aborted before. */
  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    await Promise.allSettled([...this.#fills.values()].map(({ fill }) => fill.done));
    await Promise.all(this.#behind);
    await this.#hashes.close();
  }

  #sweep(): void {
    const { spoolDirectory, log } = this.#options;
    Promise.all([...this.#fills.values()].map(({ fill }) => fill.touch()))
      .then(() => sweepSpool(spoolDirectory))
      .catch((error: unknown) => log.warn({ err: error }, 'the spool directory was not swept'));
  }

  #running(target: Target, digest: Digest): RunningFill | undefined {
    const running = this.#fills.get(fillKey(target, digest));
    return running?.fill.joinable === true ? running : undefined;
  }

  #start({ target, digest, early }: Wanted): Fill {
    const { store, upstream, spoolDirectory, signal, log } = this.#options;
    const fill = new Fill({
      digest,
      directory: spoolDirectory,
      budget: this.#budget,
      hashes: this.#hashes,
      fetch: (rest, fillSignal) =>
        (rest.offset === 0 ? early?.take() : undefined) ?? upstream.blob(target, digest, rest, fillSignal),
      keep: async (path, size) => {
        if (size <= SMALL_BYTES) await behindAnswers(signal);
        await store.putFile(digest, path);
        await this.#links.put(target, digest, { size });
      },
      without: (range, write, readerSignal) => this.#passThrough(target, digest, range, write, readerSignal),
      onKeepFailed: (error, pause) =>
        log.error(
          { err: error, digest, pause },
          'the store did not take a blob; it is served from the spool and offered again',
        ),
      signal,
    });
    const running = { fill, name: nameOf(target) };
    const key = fillKey(target, digest);
    this.#fills.set(key, running);
    fill.done
      .catch((error: unknown) =>
        log.warn({ err: error, repository: running.name, digest }, 'the blob was not stored'),
      )
      .finally(() => {
        if (this.#fills.get(key) === running) this.#fills.delete(key);
      });
    return fill;
  }

  /** The reader of a running fill; when the local disk has no room for it, one that does without. */
  async #join(fill: Fill, target: Target, digest: Digest): Promise<BlobAnswer> {
    try {
      return { blob: await fill.reader(), origin: 'miss' };
    } catch (error) {
      // The fill has told the log of it, once for all its readers.
      if (!(error instanceof SpoolFull)) throw error;
    }
    const { size } = await this.#ask(target, digest, true);
    if (size === undefined)
      throw unavailable(target.upstream, 'it does not tell the size of a blob for which there is no room');
    const copyTo: StoredBlob['copyTo'] = (write, range, readerSignal) =>
      this.#passThrough(target, digest, range, write, readerSignal);
    return { blob: { size, copyTo, close: () => Promise.resolve() }, origin: 'unstored' };
  }

  async #passThrough(
    target: Target,
    digest: Digest,
    range: ByteRange,
    write: Write,
    readerSignal: AbortSignal,
  ): Promise<void> {
    const signal = AbortSignal.any([this.#options.signal, readerSignal]);
    const fetch: FetchRest = (rest, fetchSignal) =>
      this.#options.upstream.blob(target, digest, rest, fetchSignal);
    await passThrough({ digest, fetch, range, write, signal });
  }

  /** One other reading makes up for a store that failed amid the blob, for all whom it failed. */
  #mended(stored: StoredBlob, wanted: Wanted): StoredBlob {
    const { target, digest } = wanted;
    let fill: Fill | undefined;
    return mended(
      stored,
      async (error) => {
        this.#options.log.error(
          { err: error, digest },
          'the store failed amid a blob; the rest comes from the upstream',
        );
        fill = this.#running(target, digest)?.fill ?? this.#start(wanted);
        return (await this.#join(fill, target, digest)).blob;
      },
      () => fill && this.#removeAfter(fill, digest),
    );
  }

  /** Takes a stored blob away that differs from a reading, once that has matched; it is stored anew at the next one. */
  #removeAfter(fill: Fill, digest: Digest): void {
    const { store, log } = this.#options;
    this.#goOn(
      fill.done.then(
        () => store.remove(digest),
        // It was the reading that was wrong, which says so itself.
        () => undefined,
      ),
      (error) => log.error({ err: error, digest }, 'a stored blob is damaged and could not be removed'),
    );
  }

  /** Asks whether the repository has the blob. @throws UpstreamFailure when it has not. */
  async #confirm(target: Target, digest: Digest, early?: Early): Promise<void> {
    const answer = early?.take();
    if (answer === undefined) await this.#ask(target, digest);
    else (await answer).cancel();
  }

  /** The size of a blob that the repository has, as far as the upstream tells it. @throws UpstreamFailure when it has not. */
  async #ask(target: Target, digest: Digest, isSizeWanted = false): Promise<{ size: number | undefined }> {
    const { upstream, signal } = this.#options;
    try {
      const told = await upstream.blobSize(target, digest, signal);
      if (told.size !== undefined || !isSizeWanted) return told;
    } catch (error) {
      if (!isOfHeadAlone(error)) throw error;
    }
    const body = await upstream.blob(target, digest, WHOLE, signal);
    body.cancel();
    return { size: body.size };
  }

  /** Notes, behind the answer, that the repository has a blob that its host sent, once it is known what to note. */
  #link(target: Target, digest: Digest, link: Promise<Link>): void {
    const { log } = this.#options;
    this.#goOn(
      link.then(
        async (known) => this.#links.put(target, digest, known),
        // Nothing came of the fill, which says so itself.
        () => undefined,
      ),
      (error) =>
        log.error({ err: error, digest }, 'the store did not take a link; another replica asks the upstream'),
    );
  }

  /** Nobody but {@link close} waits for this. */
  #goOn(work: Promise<void>, onFailed: (error: unknown) => void): void {
    const going = work.catch(onFailed).finally(() => this.#behind.delete(going));
    this.#behind.add(going);
  }
}

interface Wanted {
  readonly target: Target;
  readonly digest: Digest;
  readonly asked: AskedRange | undefined;
  readonly trouble: StoreTrouble;
  readonly early: Early | undefined;
}

async function linkOf(fill: Fill): Promise<Link> {
  await fill.done;
  const size = fill.verifiedSize;
  return size === undefined ? {} : { size };
}

function fillKey({ upstream }: Target, digest: Digest): string {
  return `${upstream.host} ${digest}`;
}
