import { Counter, Histogram, type Registry as Metrics } from '../process/metrics.ts';
import type { AdmissionRequest } from './admission-review.ts';
import type { Outcome } from './settlement.ts';

/** In seconds. An API server waits for two. */
export const ANSWER_BUCKETS = [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2];

/** When an API server asked. */
type At = 'create' | 'bind' | 'debug' | 'other';

/** Counts what becomes of images, and why. */
export class DecisionCounter {
  readonly #decisions: Counter<'at' | 'decision' | 'reason'>;
  readonly #seconds: Histogram<'at'>;

  constructor(metrics: Metrics) {
    this.#decisions = new Counter({
      name: 'weir_webhook_decisions_total',
      help: 'Images by what became of them (rewritten, restored, left) and why; a Pod that is left as a whole counts once.',
      labelNames: ['at', 'decision', 'reason'],
      registers: [metrics],
    });
    this.#seconds = new Histogram({
      name: 'weir_webhook_seconds',
      help: 'How long an answer took.',
      labelNames: ['at'],
      buckets: ANSWER_BUCKETS,
      registers: [metrics],
    });
  }

  count(request: AdmissionRequest, decision: Outcome['kind'], reason: string): void {
    this.#decisions.inc({ at: momentOf(request), decision, reason });
  }

  countAll(request: AdmissionRequest, outcomes: readonly Outcome[]): void {
    for (const outcome of outcomes)
      this.count(request, outcome.kind, outcome.kind === 'rewritten' ? '' : outcome.why);
  }

  /** Measures how long it takes to answer. */
  async timed<Result>(request: AdmissionRequest, answer: () => Promise<Result>): Promise<Result> {
    const end = this.#seconds.startTimer({ at: momentOf(request) });
    try {
      return await answer();
    } finally {
      end();
    }
  }
}

function momentOf({ operation, subResource }: AdmissionRequest): At {
  if (operation === 'CREATE' && !subResource) return 'create';
  if (subResource === 'binding') return 'bind';
  return subResource === 'ephemeralcontainers' ? 'debug' : 'other';
}
