import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import type { TagTimes } from '../config/config.ts';
import { SingleFlight } from './single-flight.ts';
import type { StoreWrites } from './store-writes.ts';
import { UpstreamFailure } from './upstream-failure.ts';
import { within } from './within.ts';

/** An upstream that failed for something is not asked for it again within this time, where it is known. */
const RETRY_AFTER_MS = 10_000;
const MAX_FAILURES = 20_000;

/**
 * - `hit`: known, and confirmed within its time to live;
 * - `miss`: fetched for this request;
 * - `revalidated`: the upstream confirmed it for this request;
 * - `revalidating`: the upstream is being asked, the known answer went out meanwhile;
 * - `stale`: the upstream could not confirm it.
 */
export type Origin = 'hit' | 'miss' | 'revalidated' | 'revalidating' | 'stale';

/** What an upstream said of something that it may say otherwise of later. */
interface Confirmed {
  /** Milliseconds since the epoch at which the upstream last said so. */
  readonly checkedAt: number;
}

export interface Resolved<R> {
  readonly record: R;
  readonly origin: Origin;
  /** Milliseconds since its time to live was over; 0 while it is fresh. */
  readonly overdue: number;
}

/** What somebody wants to know, and who can tell. */
export interface Inquiry<R> {
  /** Unique within its {@link Freshness}; for messages, too. */
  readonly name: string;
  readonly times: TagTimes;
  /** What the store has. */
  readonly stored: () => Promise<R | undefined>;
  /** What the upstream says, which may be that the known record still holds. @throws UpstreamFailure */
  readonly ask: (known: R | undefined) => Promise<{ record: R; origin: 'miss' | 'revalidated' }>;
  readonly store: (record: R) => Promise<void>;
  /** Takes it out of the store, where the upstream may say that it has no such thing any more. */
  readonly remove?: () => Promise<void>;
}

/**
 * Knows what upstreams said, in memory and from the store, and when to ask them again: not within the time to live;
 * behind the answer for a while after it; from then on before the answer, which waits for no longer than the budget.
 */
export class Freshness<R extends Confirmed> {
  readonly #memory: LRUCache<string, R>;
  readonly #writes: StoreWrites;
  readonly #log: Logger;
  readonly #failed = new LRUCache<string, true>({ max: MAX_FAILURES, ttl: RETRY_AFTER_MS });
  readonly #asked = new SingleFlight<Resolved<R>>();

  constructor(memory: LRUCache<string, R>, writes: StoreWrites, log: Logger) {
    this.#memory = memory;
    this.#writes = writes;
    this.#log = log;
  }

  /** @throws UpstreamFailure when nothing is known, or the upstream has no such thing any more. */
  async resolve(inquiry: Inquiry<R>): Promise<Resolved<R>> {
    const { name } = inquiry;
    const stored = this.#memory.has(name) ? undefined : await inquiry.stored();
    // Somebody else may have resolved it meanwhile.
    const record = this.#memory.get(name) ?? stored;
    if (record === undefined) return this.#ask(inquiry, undefined);
    this.#memory.set(name, record);

    const age = Date.now() - record.checkedAt;
    const { ttl, staleWhileRevalidate, budget } = inquiry.times;
    const overdue = Math.max(0, age - ttl);
    // A clock that was set back makes nothing fresh.
    const isYounger = (limit: number): boolean => age >= 0 && age < limit;
    if (isYounger(ttl)) return { record, origin: 'hit', overdue: 0 };
    if (this.#failed.has(name)) return { record, origin: 'stale', overdue };

    const asked = this.#ask(inquiry, record);
    if (isYounger(ttl + staleWhileRevalidate)) {
      this.#goOn(asked, name);
      return { record, origin: 'revalidating', overdue };
    }
    try {
      const resolved = await within(budget, asked);
      if (resolved !== undefined) return resolved;
      this.#goOn(asked, name);
      this.#failed.set(name, true);
    } catch (error) {
      if (!(error instanceof UpstreamFailure) || error.kind === 'absent') throw error;
      this.#log.warn({ err: error, what: name }, 'the upstream failed; what is known is served');
    }
    return { record, origin: 'stale', overdue };
  }

  /** Nobody waits for this answer any more, but it is still wanted. */
  #goOn(asked: Promise<unknown>, name: string): void {
    asked.catch((error: unknown) =>
      this.#log.warn({ err: error, what: name }, 'the upstream did not confirm what is known'),
    );
  }

  /** Once for all who ask at the same time. */
  async #ask(inquiry: Inquiry<R>, known: R | undefined): Promise<Resolved<R>> {
    const { name } = inquiry;
    return this.#asked.run(name, async () => {
      try {
        const { record, origin } = await inquiry.ask(known);
        this.#memory.set(name, record);
        this.#failed.delete(name);
        this.#writes.add(name, () => inquiry.store(record));
        return { record, origin, overdue: 0 };
      } catch (error) {
        if (error instanceof UpstreamFailure) this.#note(error, inquiry, known);
        throw error;
      }
    });
  }

  #note({ kind, status }: UpstreamFailure, { name, remove }: Inquiry<R>, known: R | undefined): void {
    if (kind !== 'absent') this.#failed.set(name, true);
    // Who is refused (401, 403) does not learn whether it is there.
    else if (known !== undefined && status === 404) {
      // Gone for good: it must not come back as stale when the upstream fails later.
      this.#memory.delete(name);
      if (remove !== undefined) this.#writes.add(name, remove);
    }
  }
}
