import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts';
import { formatReferrers, parseReferrers, type Referrer } from '../oci/referrers.ts';
import type { ManifestAnswer } from './manifest-cache.ts';
import { SingleFlight } from './single-flight.ts';
import { readSmallBlob } from './small-blob.ts';
import type { Store } from './store.ts';
import { StoreTrouble } from './store-trouble.ts';
import { digestName, keyOf, type Target } from './target.ts';
import { MAX_REFERRERS_BYTES, type UpstreamClient } from './upstream.ts';
import { absent, UpstreamFailure, unavailable } from './upstream-failure.ts';
import { within } from './within.ts';

const MEMORY_BYTES = 16 * 1024 * 1024;
const MAX_FAILURES = 20_000;
/** An upstream that failed for a list is not asked for it again within this time. */
const RETRY_AFTER_MS = 10_000;

export interface ReferrersAnswer {
  readonly referrers: readonly Referrer[];
  /** As of a tag: what a list holds changes as what a tag points to does. */
  readonly origin: ManifestAnswer['origin'];
  /** Milliseconds since the upstream gave the list. */
  readonly age: number;
}

export interface ReferrersCacheOptions {
  readonly store: Store;
  readonly upstream: UpstreamClient;
  readonly log: Logger;
  /** Ends requests to upstreams; those of clients that left go on until then. */
  readonly signal: AbortSignal;
}

interface Known {
  /** `undefined`: the upstream has none to give. */
  readonly referrers: readonly Referrer[] | undefined;
  readonly checkedAt: number;
  readonly bytes: number;
}

/**
 * What refers to a manifest, such as its signatures and SBOMs, from memory, the store, or the upstream. Lists are
 * asked for and kept whole and filtered for each request, and live by the same times as tags. An answer that
 * there is no list is kept as one is: it sends clients to the tags of the referrers tag schema, which must go on
 * to work when the upstream is away.
 */
export class ReferrersCache {
  readonly #options: ReferrersCacheOptions;
  readonly #known = new LRUCache<string, Known>({
    maxSize: MEMORY_BYTES,
    sizeCalculation: ({ bytes }) => bytes + 256,
  });
  readonly #failures = new LRUCache<string, UpstreamFailure>({ max: MAX_FAILURES, ttl: RETRY_AFTER_MS });
  readonly #questions = new SingleFlight<Known>();

  constructor(options: ReferrersCacheOptions) {
    this.#options = options;
  }

  /**
   * Everything that refers to the subject.
   *
   * @throws UpstreamFailure, which is `absent` when the upstream has no referrers API; or Error of the store.
   */
  async list(target: Target, subject: Digest): Promise<ReferrersAnswer> {
    const trouble = new StoreTrouble(this.#options.log);
    const { known, origin } = await trouble.around(() => this.#resolve(target, subject, trouble));
    if (known.referrers === undefined) throw absent(target.upstream, 'it lists no referrers here');
    return { referrers: known.referrers, origin, age: Date.now() - known.checkedAt };
  }

  async #resolve(
    target: Target,
    subject: Digest,
    trouble: StoreTrouble,
  ): Promise<{ known: Known; origin: ManifestAnswer['origin'] }> {
    const name = digestName(target, subject);
    const known = this.#known.get(name) ?? (await this.#stored(target, subject, trouble));
    const age = known === undefined ? Number.POSITIVE_INFINITY : Date.now() - known.checkedAt;
    const { ttl, staleWhileRevalidate, budget } = target.upstream.tags;
    // A clock that was set back makes nothing fresh.
    const isYounger = (limit: number): boolean => age >= 0 && age < limit;
    if (known !== undefined && isYounger(ttl)) return { known, origin: 'hit' };
    if (known !== undefined && this.#failures.has(name)) return { known, origin: 'stale' };

    const asked = this.#questions.run(name, () => this.#ask(target, subject));
    if (known === undefined) return { known: await asked, origin: 'miss' };
    if (isYounger(ttl + staleWhileRevalidate)) {
      this.#goOn(asked, name);
      return { known, origin: 'revalidating' };
    }
    try {
      const answer = await within(budget, asked);
      if (answer !== undefined) return { known: answer, origin: 'miss' };
      this.#goOn(asked, name);
      this.#failures.set(name, unavailable(target.upstream, `it did not list referrers within ${budget} ms`));
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
      this.#options.log.warn(
        { err: error, subject: name },
        'the upstream failed, the known referrers are served',
      );
    }
    return { known, origin: 'stale' };
  }

  /** Nobody waits for this answer any more, but it is still wanted. */
  #goOn(asked: Promise<unknown>, name: string): void {
    asked.catch((error: unknown) =>
      this.#options.log.warn({ err: error, subject: name }, 'referrers were not listed'),
    );
  }

  async #ask(target: Target, subject: Digest): Promise<Known> {
    const name = digestName(target, subject);
    try {
      const referrers = await this.#listed(target, subject);
      const bytes = referrers === undefined ? undefined : formatReferrers(referrers);
      const known = { referrers, checkedAt: Date.now(), bytes: bytes?.length ?? 0 };
      this.#known.set(name, known);
      this.#failures.delete(name);
      await this.#keep(target, subject, known.checkedAt, bytes);
      return known;
    } catch (error) {
      if (error instanceof UpstreamFailure) this.#failures.set(name, error);
      throw error;
    }
  }

  async #listed(target: Target, subject: Digest): Promise<readonly Referrer[] | undefined> {
    const { upstream, signal } = this.#options;
    try {
      return await upstream.referrers(target, subject, signal);
    } catch (error) {
      if (error instanceof UpstreamFailure && error.kind === 'absent') return undefined;
      throw error;
    }
  }

  async #stored(target: Target, subject: Digest, trouble: StoreTrouble): Promise<Known | undefined> {
    const { store } = this.#options;
    const record = await trouble.read(store.referrers(keyOf(target), subject));
    if (record === undefined) return undefined;
    const { list, checkedAt } = record;
    const bytes = list === undefined ? undefined : await this.#read(list, trouble);
    if (list !== undefined && bytes === undefined) return undefined;
    const referrers = bytes === undefined ? undefined : parseReferrers(bytes);
    const known = { referrers, checkedAt, bytes: bytes?.length ?? 0 };
    this.#known.set(digestName(target, subject), known);
    return known;
  }

  /** `undefined` when it was evicted or damaged; the upstream gives it anew then. */
  async #read(list: Digest, trouble: StoreTrouble): Promise<Buffer | undefined> {
    const { store, log } = this.#options;
    const blob = await trouble.read(store.open(list));
    if (blob === undefined) return undefined;
    try {
      const bytes =
        blob.size > MAX_REFERRERS_BYTES ? Buffer.alloc(0) : await trouble.read(readSmallBlob(blob));
      if (bytes === undefined) return undefined;
      if (digestOf(bytes, algorithmOf(list)) === list) return bytes;
      log.error({ digest: list }, 'the stored list of referrers is damaged and is asked for again');
      return undefined;
    } finally {
      await blob.close();
    }
  }

  /** What cannot be kept is served all the same. */
  async #keep(target: Target, subject: Digest, checkedAt: number, bytes: Buffer | undefined): Promise<void> {
    const { store, log } = this.#options;
    try {
      const list = bytes === undefined ? undefined : digestOf(bytes);
      if (list !== undefined && bytes !== undefined) await store.put(list, bytes);
      await store.putReferrers(keyOf(target), subject, {
        checkedAt,
        ...(list === undefined ? {} : { list }),
      });
    } catch (error) {
      const what = digestName(target, subject);
      log.error({ err: error, what }, 'the store failed; served without keeping it');
    }
  }
}
