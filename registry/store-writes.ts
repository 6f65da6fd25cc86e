import type { Logger } from 'pino';
import { pauseUnlessStopped } from '../process/pause.ts';
import { keepTrying } from './keep-trying.ts';

/** A client that was answered asks for the next thing within this time. */
const BEHIND_MS = 250;

/**
 * Resolves when what was just answered may be written: a client that got a manifest or an image's configuration asks
 * for a layer at once, whose first byte would wait for the work that requests to S3 make.
 */
export async function behindAnswers(signal: AbortSignal): Promise<void> {
  await pauseUnlessStopped(BEHIND_MS, signal);
}

/** What is written to the store behind the answers. What it does not take now is offered to it again. */
export class StoreWrites {
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #running = new Set<Promise<void>>();
  /** The latest write of each name that is not done. */
  readonly #latest = new Map<string, () => Promise<void>>();

  /** The signal ends what is offered again. */
  constructor({ log, signal }: { readonly log: Logger; readonly signal: AbortSignal }) {
    this.#log = log;
    this.#signal = signal;
  }

  /** Nobody waits for it. An earlier write of the same name is not tried again, lest it undo this one. */
  add(name: string, write: () => Promise<void>): void {
    const failed = (error: unknown, pause?: number): void =>
      this.#log.error({ err: error, what: name, pause }, 'the store failed; served without keeping it');
    const isLatest = (): boolean => this.#latest.get(name) === write;
    this.#latest.set(name, write);
    const running = behindAnswers(this.#signal)
      .then(() => keepTrying(async () => (isLatest() ? write() : undefined), failed, this.#signal))
      .catch((error: unknown) => failed(error))
      .finally(() => {
        if (isLatest()) this.#latest.delete(name);
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  /** Resolves when nothing is being written any more. */
  async close(): Promise<void> {
    await Promise.all(this.#running);
  }
}
