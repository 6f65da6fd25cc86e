import type { Logger } from 'pino';
import { aborted } from '../process/lifecycle.ts';
import type { Kubernetes } from './api.ts';
import type { ObjectName } from './client.ts';
import { takeLease } from './lease.ts';

export interface LeaderOptions {
  readonly kubernetes: Kubernetes;
  readonly lease: ObjectName;
  /** Of this replica, and of no other. */
  readonly identity: string;
  readonly log: Logger;
  /** Is told when this replica begins to lead, and when it no longer does. */
  readonly changed: (isLeading: boolean) => void;
  /** After so many milliseconds without a word of the one that leads, another may. */
  readonly durationMs?: number;
}

const DURATION_MS = 15_000;

/** One of several replicas at a time: the one that has a Lease. */
export class Leader {
  readonly #options: LeaderOptions;
  readonly #stop = new AbortController();
  readonly #over: Promise<void>;
  #isLeading = false;

  constructor(options: LeaderOptions) {
    this.#options = options;
    this.#over = this.#run();
  }

  get isLeading(): boolean {
    return this.#isLeading;
  }

  /** Gives the Lease back, so that another need not wait. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#over;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { kubernetes, lease, identity: holder, log, durationMs = DURATION_MS } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const options = { kubernetes, lease, holder, log, durationMs, jitterMs: 0 };
      const held = await takeLease(options, signal).catch(() => undefined);
      // Only when it is told to stop.
      if (held === undefined) continue;
      this.#become(true);
      await aborted(AbortSignal.any([signal, held.lost]));
      this.#become(false);
      await held.release();
    }
  }

  #become(isLeading: boolean): void {
    this.#isLeading = isLeading;
    this.#options.log.info(isLeading ? 'this replica leads' : 'this replica no longer leads');
    this.#options.changed(isLeading);
  }
}
