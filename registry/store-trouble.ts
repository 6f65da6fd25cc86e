import type { Logger } from 'pino';
import { UpstreamFailure } from './upstream-failure.ts';

/** Neither the store nor the upstream could answer: nothing is known about what was asked for. */
export class StoreTroubleError extends Error {
  override readonly name = 'StoreTroubleError';
}

/**
 * Lets one request go on without a store that fails: what it was to read comes from the upstream. Should the
 * upstream not have it, that is no answer any more, because the store may.
 */
export class StoreTrouble {
  readonly #log: Logger;
  #error: unknown;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** What the store gives; `undefined` when it has nothing, or fails. */
  async read<T>(reading: Promise<T | undefined>): Promise<T | undefined> {
    try {
      return await reading;
    } catch (error) {
      if (this.#error === undefined)
        this.#log.error({ err: error }, 'the store failed; the upstream is asked instead');
      this.#error = error;
      return undefined;
    }
  }

  /** Does the work, and says what its failure means when the store has failed as well. */
  async around<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (this.#error === undefined || !(error instanceof UpstreamFailure)) throw error;
      throw new StoreTroubleError(`the store failed, and ${error.message}`, { cause: this.#error });
    }
  }
}
