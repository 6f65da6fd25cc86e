import { pauseUnlessStopped } from '../process/pause.ts';
import { S3Failure } from './s3-failure.ts';

/** A server that was found unreachable is asked so often whether it is back. */
const PAUSE_MS = 2_000;

/**
 * Knows whether S3 answers, so that a server that is down costs a pull no time: what needs it fails at once, and
 * one request now and then, for which nobody waits, finds out when it is back.
 */
export class S3Availability {
  readonly #probe: () => Promise<unknown>;
  readonly #signal: AbortSignal;
  #problem: S3Failure | undefined;
  #probing = false;

  /** `probe` asks for something small; the signal ends the asking. */
  constructor(probe: () => Promise<unknown>, signal: AbortSignal) {
    this.#probe = probe;
    this.#signal = signal;
  }

  /** Why the last request failed; `undefined` when it did not. */
  get problem(): S3Failure | undefined {
    return this.#problem;
  }

  /** @throws what the work throws, or the last failure while the server is left alone. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    if (this.#probing && this.#problem !== undefined)
      throw new S3Failure('unreachable', `not tried, since lately: ${this.#problem.message}`, this.#problem);
    try {
      const result = await work();
      // What was asked before the server went away may still be answered.
      if (!this.#probing) this.#problem = undefined;
      return result;
    } catch (error) {
      this.#note(error);
      throw error;
    }
  }

  #note(error: unknown): void {
    if (!(error instanceof S3Failure)) return;
    this.#problem = error;
    if (error.kind === 'unreachable' && !this.#probing) void this.#untilBack();
  }

  async #untilBack(): Promise<void> {
    this.#probing = true;
    while (this.#probing && !this.#signal.aborted) {
      // It rejects when the signal aborts, which the loop sees.
      await pauseUnlessStopped(PAUSE_MS, this.#signal, { ref: false });
      try {
        await this.#probe();
        this.#problem = undefined;
        this.#probing = false;
      } catch (error) {
        if (error instanceof S3Failure) this.#problem = error;
        // What is refused would be refused for ever, and each request finds out by itself.
        this.#probing = error instanceof S3Failure && error.kind === 'unreachable';
      }
    }
  }
}
