import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import type { Digest } from '../oci/digest.ts';
import { Fill } from './fill.ts';
import type { Store, StoredBlob } from './store.ts';
import { digestName, keyOf, nameOf, type Target } from './target.ts';
import type { UpstreamClient } from './upstream.ts';

const MAX_LINKS = 200_000;

export interface BlobAnswer {
  readonly blob: StoredBlob;
  /** `hit`: from the store; `miss`: from an upstream reading that this request began, or joined. */
  readonly origin: 'hit' | 'miss';
}

export interface BlobCacheOptions {
  readonly store: Store;
  readonly upstream: UpstreamClient;
  /** Directory for spool files. */
  readonly spoolDirectory: string;
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
  readonly #fills = new Map<Digest, RunningFill>();
  /** Links are never taken back, so knowing of one spares the store a look. */
  readonly #links = new LRUCache<string, true>({ max: MAX_LINKS });

  constructor(options: BlobCacheOptions) {
    this.#options = options;
  }

  /** How many blobs are being read from upstreams. */
  get fills(): number {
    return this.#fills.size;
  }

  /**
   * The blob, to be closed by the caller. A blob that another repository brought in is handed out only after
   * the upstream has confirmed that this repository has it too.
   *
   * @throws UpstreamFailure, or Error of the store.
   */
  async open(target: Target, digest: Digest): Promise<BlobAnswer> {
    let allowed = await this.#isLinked(target, digest);
    for (;;) {
      const running = this.#running(digest);
      if (running !== undefined) {
        if (allowed || running.name === nameOf(target))
          return { blob: await running.fill.reader(), origin: 'miss' };
      } else {
        const stored = await this.#options.store.open(digest);
        if (stored !== undefined && allowed) return { blob: stored, origin: 'hit' };
        await stored?.close();
        if (stored === undefined) {
          // Somebody else may have begun to read it meanwhile.
          if (this.#running(digest) !== undefined) continue;
          return { blob: await this.#start(target, digest).reader(), origin: 'miss' };
        }
      }
      await this.#confirm(target, digest);
      allowed = true;
    }
  }

  /** The size of the blob, without fetching it; `undefined` in it when the upstream does not tell. @throws as {@link open} */
  async size(target: Target, digest: Digest): Promise<{ size: number | undefined; origin: 'hit' | 'miss' }> {
    const { store, upstream, signal } = this.#options;
    if (await this.#isLinked(target, digest)) {
      const stored = await store.stat(digest);
      if (stored !== undefined) return { size: stored.size, origin: 'hit' };
    }
    return { ...(await upstream.blobSize(target, digest, signal)), origin: 'miss' };
  }

  /** Resolves when no fill uses the spool directory any more; the signal is to be aborted before. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#fills.values()].map(({ fill }) => fill.done));
  }

  #running(digest: Digest): RunningFill | undefined {
    const running = this.#fills.get(digest);
    return running?.fill.joinable === true ? running : undefined;
  }

  #start(target: Target, digest: Digest): Fill {
    const { store, upstream, spoolDirectory, signal, log } = this.#options;
    const fill = new Fill({
      digest,
      directory: spoolDirectory,
      fetch: (offset, fillSignal) => upstream.blob(target, digest, offset, fillSignal),
      keep: async (path) => {
        await store.putFile(digest, path);
        await this.#putLink(target, digest);
      },
      signal,
    });
    this.#fills.set(digest, { fill, name: nameOf(target) });
    fill.done
      .catch((error: unknown) =>
        log.warn({ err: error, repository: nameOf(target), digest }, 'the blob was not stored'),
      )
      .finally(() => this.#fills.delete(digest));
    return fill;
  }

  async #isLinked(target: Target, digest: Digest): Promise<boolean> {
    const name = digestName(target, digest);
    if (this.#links.get(name) === true) return true;
    const linked = (await this.#options.store.link(keyOf(target), digest)) !== undefined;
    if (linked) this.#links.set(name, true);
    return linked;
  }

  async #confirm(target: Target, digest: Digest): Promise<void> {
    const { upstream, signal } = this.#options;
    await upstream.blobSize(target, digest, signal);
    await this.#putLink(target, digest);
  }

  async #putLink(target: Target, digest: Digest): Promise<void> {
    const { store } = this.#options;
    if (!(await this.#isLinked(target, digest))) await store.putLink(keyOf(target), digest, {});
    this.#links.set(digestName(target, digest), true);
  }
}
