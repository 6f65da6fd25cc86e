import type { Logger } from 'pino';
import { pauseUnlessStopped } from '../process/pause.ts';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, orUndefined, statusOf } from './client.ts';

type Lease = ObjectOf<'leases'>;

export interface LeaseOptions {
  readonly kubernetes: Kubernetes;
  readonly lease: ObjectName;
  /** Who has it then: whoever has the same name may take it on. */
  readonly holder: string;
  readonly log: Logger;
  /** After so many milliseconds without a word of its holder, others may have it. */
  readonly durationMs?: number;
  /** The first look is up to so many milliseconds away, so that not all look at once. */
  readonly jitterMs?: number;
}

const DURATION_MS = 60_000;
const JITTER_MS = 10_000;
/** Of the duration. */
const RENEW = 1 / 3;
const LOOK = 1 / 10;
const UNSURE = 2 / 3;

/**
 * Waits until a Lease is free, and takes it: of all holders, one at a time has it. A holder that is gone is told by
 * its Lease not changing for its duration, on the clock of whoever waits, since clocks differ. While the API server
 * is away, nobody takes it.
 *
 * @throws Error when the signal is aborted.
 */
export async function takeLease(options: LeaseOptions, signal: AbortSignal): Promise<HeldLease> {
  const { durationMs = DURATION_MS, jitterMs = JITTER_MS, lease, log } = options;
  await pauseUnlessStopped(Math.random() * jitterMs, signal);
  let seen: { readonly version: string | undefined; readonly at: number } | undefined;
  for (;;) {
    signal.throwIfAborted();
    try {
      const found = await read(options);
      const version = found?.metadata?.resourceVersion;
      if (seen === undefined || seen.version !== version) seen = { version, at: performance.now() };
      const isOver = performance.now() - seen.at > durationOf(found);
      if (found === undefined || isFree(found, options) || isOver)
        return new HeldLease(options, await write(options, found));
    } catch (error) {
      // Another was faster.
      if (statusOf(error) !== 409)
        log.warn(
          { err: apiProblem(`take the Lease ${lease.namespace}/${lease.name}`, error) },
          'trying again',
        );
    }
    await pauseUnlessStopped(durationMs * LOOK * (0.5 + Math.random()), signal);
  }
}

/** A Lease that is ours, as long as it is renewed: which it is until it is given away. */
export class HeldLease {
  readonly #options: LeaseOptions;
  readonly #stop = new AbortController();
  readonly #lost = new AbortController();
  readonly #renewing: Promise<void>;
  #lease: Lease;
  #isOver = false;

  constructor(options: LeaseOptions, lease: Lease) {
    this.#options = options;
    this.#lease = lease;
    this.#renewing = this.#renew();
  }

  /** Aborts when somebody else may have it by now. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Others may have it, after so many milliseconds, unless it was given away before. Never rejects. */
  async release(afterMs = 0): Promise<void> {
    this.#stop.abort();
    await this.#renewing;
    if (this.#isOver || this.#lost.signal.aborted) return;
    this.#isOver = true;
    try {
      if (afterMs > 0) await write({ ...this.#options, durationMs: afterMs }, this.#lease);
      else await free(this.#options, this.#lease);
    } catch (error) {
      const { lease, log } = this.#options;
      const problem = apiProblem(`release the Lease ${lease.namespace}/${lease.name}`, error);
      log.warn({ err: problem }, 'others have to wait until it has run out');
    }
  }

  /** Others may have it when it has run out. */
  abandon(): void {
    this.#isOver = true;
    this.#stop.abort();
  }

  /** Never rejects. */
  async #renew(): Promise<void> {
    const { durationMs = DURATION_MS, log } = this.#options;
    const { signal } = this.#stop;
    let renewedAt = performance.now();
    for (;;) {
      await pauseUnlessStopped(durationMs * RENEW, signal, { ref: false });
      if (signal.aborted) return;
      const now = performance.now();
      try {
        const renewed = await this.#renewOnce();
        if (renewed === undefined) break;
        this.#lease = renewed;
        renewedAt = now;
      } catch (error) {
        log.warn({ err: apiProblem('renew the Lease', error) }, 'trying again');
        if (performance.now() - renewedAt > durationMs * UNSURE) break;
      }
    }
    this.#lost.abort();
  }

  /** `undefined` when another has it. */
  async #renewOnce(): Promise<Lease | undefined> {
    try {
      return await write(this.#options, this.#lease);
    } catch (error) {
      if (statusOf(error) !== 409 && statusOf(error) !== 404) throw error;
      // What was written before may have arrived, and its answer not.
      const found = await read(this.#options);
      return found?.spec?.holderIdentity === this.#options.holder ? write(this.#options, found) : undefined;
    }
  }
}

function isFree({ spec }: Lease, { holder }: LeaseOptions): boolean {
  const by = spec?.holderIdentity ?? '';
  return by === '' || by === holder;
}

/** As its holder said. */
function durationOf(lease: Lease | undefined): number {
  return (lease?.spec?.leaseDurationSeconds ?? 0) * 1000;
}

function read({ kubernetes, lease }: LeaseOptions): Promise<Lease | undefined> {
  return orUndefined(() => kubernetes.read('leases', lease));
}

/** Says that we have it, now. The API refuses it with 409 when somebody else wrote it since. */
function write(options: LeaseOptions, before: Lease | undefined): Promise<Lease> {
  const { kubernetes, lease, holder, durationMs = DURATION_MS } = options;
  const now = microTime(new Date());
  const { holderIdentity, acquireTime = now, leaseTransitions = 0 } = before?.spec ?? {};
  const isOurs = holderIdentity === holder;
  const spec = {
    holderIdentity: holder,
    leaseDurationSeconds: Math.ceil(durationMs / 1000),
    acquireTime: isOurs ? acquireTime : now,
    leaseTransitions: isOurs ? leaseTransitions : leaseTransitions + 1,
    renewTime: now,
  };
  if (before !== undefined) return replace(options, before, spec);
  const { namespace, name } = lease;
  return kubernetes.create('leases', { metadata: { namespace, name }, spec }, namespace);
}

/** Times of Leases have six digits behind the second, and no other number of them (apimachinery, MicroTime). */
function microTime(date: Date): string {
  return date.toISOString().replace('Z', '000Z');
}

/** Says that nobody has it. */
function free(options: LeaseOptions, before: Lease): Promise<Lease> {
  return replace(options, before, { leaseTransitions: before.spec?.leaseTransitions ?? 0 });
}

function replace(
  { kubernetes, lease }: LeaseOptions,
  before: Lease,
  spec: NonNullable<Lease['spec']>,
): Promise<Lease> {
  const { metadata = {} } = before;
  return kubernetes.replace('leases', lease, { metadata, spec });
}
