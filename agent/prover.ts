import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry as Metrics } from '../process/metrics.ts';
import type { HostState } from './change.ts';
import { type Proof, type ProofOptions, prove } from './proof.ts';

/** In milliseconds. */
export interface ProverTimings {
  /** Changes come in flocks: the proof begins so long after one, and not again before. */
  readonly settle: number;
  /** At most so much later still, by chance: an edit reaches all nodes at once. */
  readonly spread: number;
  /** Between proofs, give or take a fifth. */
  readonly interval: number;
  /** After a proof that failed; twice as long each time, up to the interval. */
  readonly retry: number;
}

export const PROVER_TIMINGS: ProverTimings = {
  settle: 500,
  spread: 2_000,
  interval: 600_000,
  retry: 15_000,
};

export interface ProverOptions extends Omit<ProofOptions, 'signal'> {
  readonly metrics: Metrics;
  readonly timings?: Partial<ProverTimings>;
}

const KINDS: readonly Proof['kind'][] = ['proven', 'bypassed', 'unproven'];

/** Proves again and again that the node's runtime obeys its files: after each change of them, and at intervals. */
export class Prover {
  readonly #options: ProverOptions;
  readonly #timings: ProverTimings;
  readonly #log: Logger;
  readonly #count: Counter<'result'>;
  readonly #listeners = new Set<(proof: Proof | undefined) => void>();
  #file: HostState | undefined;
  #proof: Proof | undefined;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer is due, on the clock of `performance.now()`. */
  #due = Number.POSITIVE_INFINITY;
  /** The proof that is on its way; aborted when nobody wants it any more. */
  #run: { readonly abort: AbortController; readonly ended: Promise<void> } | undefined;
  #isAskedFor = false;
  #isClosed = false;

  constructor(options: ProverOptions) {
    this.#options = options;
    this.#timings = { ...PROVER_TIMINGS, ...options.timings };
    this.#log = options.log;
    this.#count = new Counter({
      name: 'weir_agent_proofs_total',
      help: 'Trials whether the runtime pulls through the mirror, by their result.',
      labelNames: ['result'],
      registers: [options.metrics],
    });
    for (const result of KINDS) this.#count.inc({ result }, 0);
    const current = (): Proof | undefined => this.#proof;
    options.metrics.registerMetric(
      new Gauge({
        name: 'weir_agent_proof',
        help: 'Whether the runtime pulls through the mirror: 1 for the last result, proven, bypassed or unproven.',
        labelNames: ['result'],
        registers: [],
        collect(): void {
          for (const result of KINDS) this.set({ result }, current()?.kind === result ? 1 : 0);
        },
      }),
    );
  }

  /** The last result; `undefined` before the first, and while there is nothing to prove. */
  get proof(): Proof | undefined {
    return this.#proof;
  }

  /** Is told of each new result, when it is another one. The returned function ends it. */
  subscribe(listener: (proof: Proof | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** How the canary's file stands after a look at the files, and whether any of them was changed. */
  look(file: HostState | undefined, isChanged: boolean): void {
    if (this.#isClosed) return;
    const isNew = !isDeepStrictEqual(file, this.#file);
    this.#file = file;
    if (file?.kind === 'configured') {
      if (isNew || isChanged) this.#askSoon();
      return;
    }
    if (!isNew) return;
    this.#cancel();
    this.#settle(
      file === undefined
        ? undefined
        : { kind: 'unproven', reason: `the canary's file is not weir's: ${file.reason}` },
    );
  }

  /** Ends what is on its way, and leaves no canary behind. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#run?.ended;
    this.#listeners.clear();
  }

  #askSoon(): void {
    if (this.#run === undefined) this.#wait(this.#timings.settle + this.#timings.spread * Math.random());
    else this.#isAskedFor = true;
  }

  /** Not put off by what is asked for later. */
  #wait(delay: number): void {
    const due = performance.now() + delay;
    if (due >= this.#due) return;
    this.#stopWaiting();
    this.#due = due;
    this.#timer = setTimeout(() => this.#begin(), delay);
  }

  #stopWaiting(): void {
    clearTimeout(this.#timer);
    this.#due = Number.POSITIVE_INFINITY;
  }

  #cancel(): void {
    this.#stopWaiting();
    this.#isAskedFor = false;
    this.#failures = 0;
    this.#run?.abort.abort(new Error('the proof is not wanted any more'));
  }

  #begin(): void {
    this.#stopWaiting();
    const abort = new AbortController();
    const ended = this.#prove(abort.signal).finally(() => {
      this.#run = undefined;
      if (this.#isClosed || this.#file?.kind !== 'configured') return;
      if (this.#isAskedFor || abort.signal.aborted) {
        this.#isAskedFor = false;
        this.#askSoon();
      } else this.#wait(this.#pause());
    });
    this.#run = { abort, ended };
  }

  async #prove(signal: AbortSignal): Promise<void> {
    try {
      const proof = await prove({ ...this.#options, signal });
      // Whoever aborted it has settled what holds now.
      if (signal.aborted) return;
      this.#count.inc({ result: proof.kind });
      this.#failures = proof.kind === 'proven' ? 0 : this.#failures + 1;
      this.#settle(proof);
    } catch (error) {
      if (!signal.aborted) this.#log.error({ err: error }, 'it could not be tried whether the runtime obeys');
    }
  }

  #pause(): number {
    const { interval, retry } = this.#timings;
    const pause = this.#failures === 0 ? interval : Math.min(interval, retry * 2 ** (this.#failures - 1));
    return pause * (0.8 + 0.4 * Math.random());
  }

  #settle(proof: Proof | undefined): void {
    if (isDeepStrictEqual(proof, this.#proof)) return;
    this.#proof = proof;
    if (proof?.kind === 'proven') this.#log.info(proof, 'the runtime pulls through the mirror');
    else if (proof !== undefined) this.#log.warn(proof, `the runtime's use of the mirror: ${proof.kind}`);
    for (const listener of this.#listeners) listener(proof);
  }
}
