/**
 * Lets so many requests go on at once, in the order in which they came: each that goes on has a connection, and a new
 * connection costs both sides more than the request itself.
 */
export class PodGate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** @returns what it acts to; `undefined` when the signal was aborted before it was its turn. */
  async pass<Result>(signal: AbortSignal, act: () => Promise<Result>): Promise<Result | undefined> {
    await this.#enter();
    try {
      return signal.aborted ? undefined : await act();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  async #enter(): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    await promise;
  }
}
