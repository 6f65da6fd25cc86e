import type { Logger } from 'pino';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName } from './client.ts';

/** Something to be said under a Pod, as `kubectl describe pod` shows it. */
export interface PodEvent {
  readonly pod: ObjectName & { readonly uid: string };
  /** In upper camel case, for machines. */
  readonly reason: string;
  readonly message: string;
}

/** The API refuses longer ones (k8s.io/api/events/v1, Event.note). */
const MAX_MESSAGE = 1_000;
/** More than that tell nobody anything, and cost the API server as much as the Pods do. */
const MAX_EVENTS = 20;
const PER_MS = 10_000;

/** Warnings under Pods: so many in a while and no more, and none that anybody waits for. */
export class PodEvents {
  readonly #kubernetes: Kubernetes;
  readonly #reporter: string;
  readonly #log: Logger;
  #since = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(kubernetes: Kubernetes, reporter: string, log: Logger) {
    this.#kubernetes = kubernetes;
    this.#reporter = reporter;
    this.#log = log;
  }

  warn(event: PodEvent): void {
    if (this.#isAllowed()) void this.#create(event);
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
  async #create({ pod, reason, message }: PodEvent): Promise<void> {
    const { namespace, name, uid } = pod;
    const now = new Date().toISOString();
    try {
      await this.#kubernetes.create(
        'events',
        {
          metadata: { generateName: `${name.slice(0, 200)}.`, namespace },
          involvedObject: { kind: 'Pod', apiVersion: 'v1', namespace, name, uid },
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
      this.#log.warn({ err: apiProblem(`report ${reason}`, error), namespace, pod: name }, message);
    }
  }
}
