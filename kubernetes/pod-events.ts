import type { Logger } from 'pino';
import { Counter, type Registry as Metrics } from '../process/metrics.ts';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName } from './client.ts';

/** Something to be said under a Pod, or what makes it, as `kubectl describe` shows it. */
export interface PodEvent {
  readonly subject: ObjectName & { readonly apiVersion: string; readonly kind: string; readonly uid: string };
  /** In upper camel case, for machines. */
  readonly reason: string;
  readonly message: string;
}

/** The API refuses longer ones (k8s.io/api/events/v1, Event.note). */
const MAX_MESSAGE = 1_000;
/** More than that tell nobody anything, and cost the API server as much as the Pods do. */
const MAX_EVENTS = 20;
const PER_MS = 10_000;

export interface PodEventsOptions {
  /** The program (`weir-webhook`). */
  readonly reporter: string;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** Warnings under Pods: so many in a while and no more, which counts the others, and none that anybody waits for. */
export class PodEvents {
  readonly #kubernetes: Kubernetes;
  readonly #reporter: string;
  readonly #log: Logger;
  readonly #dropped: Counter<'why'>;
  #since = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(kubernetes: Kubernetes, { reporter, metrics, log }: PodEventsOptions) {
    this.#kubernetes = kubernetes;
    this.#reporter = reporter;
    this.#log = log;
    this.#dropped = new Counter({
      name: 'weir_webhook_events_dropped_total',
      help: 'Events that were not made: there were many at once, or the API server did not take them.',
      labelNames: ['why'],
      registers: [metrics],
    });
  }

  warn(event: PodEvent): void {
    if (this.#isAllowed()) void this.#create(event);
    else this.#dropped.inc({ why: 'many' });
  }

  #isAllowed(): boolean {
    const now = performance.now();
    if (now - this.#since > PER_MS) {
      this.#since = now;
      this.#count = 0;
    }
    this.#count += 1;
    return this.#count <= MAX_EVENTS;
  }

  /** Never rejects. */
  async #create({ subject, reason, message }: PodEvent): Promise<void> {
    const { namespace, name } = subject;
    const now = new Date().toISOString();
    try {
      await this.#kubernetes.create(
        'events',
        {
          metadata: { generateName: `${name.slice(0, 200)}.`, namespace },
          involvedObject: subject,
          type: 'Warning',
          reason,
          message: message.slice(0, MAX_MESSAGE),
          source: { component: this.#reporter },
          reportingComponent: this.#reporter,
          firstTimestamp: now,
          lastTimestamp: now,
          count: 1,
        },
        namespace,
      );
    } catch (error) {
      this.#dropped.inc({ why: 'refused' });
      this.#log.warn({ err: apiProblem(`report ${reason}`, error), subject }, message);
    }
  }
}
