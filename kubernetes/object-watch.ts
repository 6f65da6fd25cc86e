import type { KubernetesListObject, KubernetesObject } from '@kubernetes/client-node';
import { ListWatch } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { apiProblem, type Kubernetes } from './client.ts';

export interface ObjectWatchOptions<Raw extends KubernetesObject> {
  readonly kubernetes: Kubernetes;
  /** For people: `ConfigMap weir/weir`. */
  readonly what: string;
  /** Of the collection: `/api/v1/namespaces/weir/configmaps`. */
  readonly path: string;
  readonly list: () => Promise<KubernetesListObject<Raw>>;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Is given all that there is, first when it is known for the first time. */
  readonly changed: (objects: readonly Raw[]) => void;
  readonly log: Logger;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** A watch that stood for so long was a good one. */
const SOUND_MS = 60_000;

/**
 * Objects of one collection, listed once and watched from there on. When the API server is away, what was known
 * last stays, and the watch begins anew after a pause that grows and is not the same on two nodes.
 */
export class ObjectWatch<Raw extends KubernetesObject> {
  /** Settles when the objects are known for the first time. */
  readonly known: Promise<void>;
  readonly #options: ObjectWatchOptions<Raw>;
  readonly #isKnown = Promise.withResolvers<void>();
  #watch: ListWatch<Raw> | undefined;
  #pause = FIRST_PAUSE_MS;
  #startedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #isScheduled = false;
  #problem: Error | undefined;
  #isClosed = false;

  constructor(options: ObjectWatchOptions<Raw>) {
    this.#options = options;
    this.known = this.#isKnown.promise;
    this.#start();
  }

  /** Why what is known may be old; `undefined` while the watch stands. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#watch?.stop();
  }

  #start(): void {
    const { kubernetes, path, list, labelSelector, fieldSelector, what, log } = this.#options;
    const listed = async (): Promise<KubernetesListObject<Raw>> => {
      const answer = await list();
      if (this.#problem !== undefined) log.info(`${what} is watched again`);
      this.#problem = undefined;
      // The watch takes the list in as soon as it has it, without a word when it is empty.
      this.#publishSoon();
      return answer;
    };
    const watch = new ListWatch<Raw>(path, kubernetes.watch, listed, false, labelSelector, fieldSelector);
    this.#watch = watch;
    this.#startedAt = performance.now();
    watch.on('change', () => this.#publishSoon());
    watch.on('error', (error: unknown) => this.#again(watch, error));
    watch.start().catch((error: unknown) => this.#again(watch, error));
  }

  #publishSoon(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#isClosed) return;
      this.#options.changed(this.#watch?.list() ?? []);
      this.#isKnown.resolve();
    });
  }

  #again(watch: ListWatch<Raw>, error: unknown): void {
    if (this.#isClosed || watch !== this.#watch || this.#timer !== undefined) return;
    void watch.stop();
    const { what, log } = this.#options;
    const problem = apiProblem(`watch ${what}`, error);
    if (this.#problem === undefined) log.warn({ err: problem }, 'what was known last stays in force');
    this.#problem = problem;
    if (performance.now() - this.#startedAt > SOUND_MS) this.#pause = FIRST_PAUSE_MS;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#start();
      },
      this.#pause * (0.5 + Math.random()),
    );
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
  }
}
