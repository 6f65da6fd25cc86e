import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import { type Digest, digestOf } from '../oci/digest.ts';
import { formatReferrers, parseReferrers, type Referrer } from '../oci/referrers.ts';
import { Freshness, type Inquiry, type Origin } from './freshness.ts';
import { readIntact } from './small-blob.ts';
import type { Store } from './store.ts';
import { StoreTrouble } from './store-trouble.ts';
import { StoreWrites } from './store-writes.ts';
import { digestName, keyOf, type Target } from './target.ts';
import { MAX_REFERRERS_BYTES, type UpstreamClient } from './upstream.ts';
import { absent, UpstreamFailure } from './upstream-failure.ts';

/** How registries without the referrers API, and what stands before them, answer for a path that they do not know. */
const WITHOUT_API: ReadonlySet<number | undefined> = new Set([400, 404, 405, 406, 501]);

const MEMORY_BYTES = 16 * 1024 * 1024;

export interface ReferrersAnswer {
  readonly referrers: readonly Referrer[];
  /** As of a tag: what a list holds changes as what a tag points to does. */
  readonly origin: Origin;
  /** Milliseconds since the time to live was over; 0 while it is fresh. */
  readonly overdue: number;
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
  readonly #writes: StoreWrites;
  readonly #lists: Freshness<Known>;

  constructor(options: ReferrersCacheOptions) {
    this.#options = options;
    this.#writes = new StoreWrites(options);
    const memory = new LRUCache<string, Known>({
      maxSize: MEMORY_BYTES,
      sizeCalculation: ({ bytes }) => bytes + 256,
    });
    this.#lists = new Freshness(memory, this.#writes, options.log);
  }

  /** Resolves when nothing is being written to the store any more. */
  async close(): Promise<void> {
    await this.#writes.close();
  }

  /**
   * Everything that refers to the subject.
   *
   * @throws UpstreamFailure, which is `absent` when the upstream has no referrers API; or Error of the store.
   */
  async list(target: Target, subject: Digest): Promise<ReferrersAnswer> {
    const trouble = new StoreTrouble(this.#options.log);
    const { record, origin, overdue } = await trouble.around(() =>
      this.#lists.resolve(this.#inquiry(target, subject, trouble)),
    );
    if (record.referrers === undefined) throw absent(target.upstream, 'it lists no referrers here');
    return { referrers: record.referrers, origin, overdue };
  }

  #inquiry(target: Target, subject: Digest, trouble: StoreTrouble): Inquiry<Known> {
    const { store } = this.#options;
    const key = keyOf(target);
    return {
      name: digestName(target, subject),
      times: target.upstream.tags,
      stored: () => this.#stored(target, subject, trouble),
      ask: async (known) => {
        const referrers = await this.#listed(target, subject, known);
        const bytes = referrers === undefined ? 0 : formatReferrers(referrers).length;
        return { record: { referrers, bytes, checkedAt: Date.now() }, origin: 'miss' };
      },
      store: async ({ referrers, checkedAt }) => {
        if (referrers === undefined) return await store.putReferrers(key, subject, { checkedAt });
        const bytes = formatReferrers(referrers);
        const list = digestOf(bytes);
        await store.put(list, bytes);
        await store.putReferrers(key, subject, { list, checkedAt });
      },
    };
  }

  /** `undefined` when the upstream has none to give, which one that merely refuses us does not say of a known list. */
  async #listed(
    target: Target,
    subject: Digest,
    known: Known | undefined,
  ): Promise<readonly Referrer[] | undefined> {
    const { upstream, signal } = this.#options;
    try {
      return await upstream.referrers(target, subject, signal);
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
      const isRefusal = error.kind === 'absent' && known?.referrers === undefined;
      if (isRefusal || WITHOUT_API.has(error.status)) return undefined;
      throw error;
    }
  }

  /** `undefined` also when the list was evicted or damaged; the upstream gives it anew then. */
  async #stored(target: Target, subject: Digest, trouble: StoreTrouble): Promise<Known | undefined> {
    const record = await trouble.read(this.#options.store.referrers(keyOf(target), subject));
    if (record === undefined) return undefined;
    const { list, checkedAt } = record;
    if (list === undefined) return { referrers: undefined, bytes: 0, checkedAt };
    const bytes = await readIntact(list, MAX_REFERRERS_BYTES, { ...this.#options, trouble });
    return bytes && { referrers: parseReferrers(bytes), bytes: bytes.length, checkedAt };
  }
}
