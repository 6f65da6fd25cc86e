import { pauseUnlessStopped } from './pause.ts';

export interface LatestOptions<Value> {
  /** Rejects when it is to be tried again, with this value or a newer one. */
  readonly act: (value: Value) => Promise<void>;
  readonly failed: (error: unknown) => void;
  /** Milliseconds between two acts, however many values come. */
  readonly restMs?: number;
  /** Milliseconds until what failed is tried again for the first time; later it takes longer. */
  readonly retryMs?: number;
}

const RETRY_MS = 5_000;
const LONGEST_RETRY_MS = 60_000;

/** Acts on values one at a time, and on the newest only: what comes meanwhile takes the place of what waits. */
export class Latest<Value> {
  readonly #options: LatestOptions<Value>;
  readonly #stop = new AbortController();
  #next: { readonly value: Value } | undefined;
  #running: Promise<void> | undefined;

  constructor(options: LatestOptions<Value>) {
    this.#options = options;
  }

  put(value: Value): void {
    if (this.#stop.signal.aborted) return;
    this.#next = { value };
    this.#running ??= this.#run();
  }

  /** Drops what waits, and resolves when what is being done is done. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#next = undefined;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { act, failed, restMs = 0, retryMs = RETRY_MS } = this.#options;
    let retry = retryMs;
    while (this.#next !== undefined) {
      const next = this.#next;
      this.#next = undefined;
      try {
        await act(next.value);
        retry = retryMs;
        if (restMs > 0) await this.#pause(restMs);
      } catch (error) {
        failed(error);
        if (!this.#stop.signal.aborted) this.#next ??= next;
        await this.#pause(retry * (0.5 + Math.random()));
        retry = Math.min(retry * 2, LONGEST_RETRY_MS);
      }
    }
    this.#running = undefined;
  }

  /** Is no reason for the program to go on. */
  async #pause(milliseconds: number): Promise<void> {
    await pauseUnlessStopped(milliseconds, this.#stop.signal, { ref: false });
  }
}
