import { S3Failure } from './s3-failure.ts';

/** After a server was found unreachable it is tried by one request in so long; the others fail at once. */
const PAUSE_MS = 2_000;

/**
 * Knows whether S3 answers, so that a server that is down costs a pull no time: what needs it fails at once, and
 * one request now and then finds out when it is back.
 */
export class S3Availability {
  #problem: S3Failure | undefined;
  #quietUntil = 0;

  /** Why the last request failed; `undefined` when it did not. */
  get problem(): S3Failure | undefined {
    return this.#problem;
  }

  /** @throws what the work throws, or the last failure while the server is left alone. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    const now = performance.now();
    if (this.#problem?.kind === 'unreachable') {
      if (now < this.#quietUntil)
        throw new S3Failure(
          'unreachable',
          `not tried, since lately: ${this.#problem.message}`,
          this.#problem,
        );
      this.#quietUntil = now + PAUSE_MS;
    }
    try {
      const result = await work();
      this.#problem = undefined;
      return result;
    } catch (error) {
      if (error instanceof S3Failure) {
        this.#problem = error;
        this.#quietUntil = performance.now() + PAUSE_MS;
      }
      throw error;
    }
  }
}
