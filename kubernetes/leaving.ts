import type { Logger } from 'pino';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/**
 * Whether the agents are leaving the cluster for good, which they learn from the DaemonSet and the namespace that
 * they belong to. It is watched all the time: when a namespace is deleted, the account with which it could be asked
 * in the end is gone before the Pods are.
 */
export class Leaving {
  readonly #kubernetes: Kubernetes;
  readonly #daemonSet: ObjectName;
  readonly #log: Logger;
  readonly #watch: ObjectWatch<'daemonsets'>;
  readonly #already = new AbortController();
  #isKnown = false;
  #wasThere = false;
  #isLeaving = false;
  #nodes = 1;

  constructor(kubernetes: Kubernetes, daemonSet: ObjectName, log: Logger) {
    this.#kubernetes = kubernetes;
    this.#daemonSet = daemonSet;
    this.#log = log;
    const { namespace, name } = daemonSet;
    const fieldSelector = `metadata.name=${name}`;
    this.#watch = new ObjectWatch<'daemonsets'>({
      kubernetes,
      what: `DaemonSet ${namespace}/${name}`,
      collection: 'daemonsets',
      selection: { namespace, fieldSelector },
      changed: ([found]) => {
        if (!this.#isKnown && (found === undefined || isBeingDeleted(found))) this.#already.abort();
        this.#isKnown = true;
        this.#isLeaving = found === undefined ? this.#wasThere : isBeingDeleted(found);
        this.#wasThere ||= found !== undefined;
        this.#nodes = found?.status?.desiredNumberScheduled ?? 1;
      },
      log,
    });
  }

  /**
   * Aborts when the agents were leaving before this one knew of it. Process 1 of a container never gets a signal
   * that it has no handler for yet: whoever is told to stop while it starts would not stop, and be killed.
   */
  get already(): AbortSignal {
    return this.#already.signal;
  }

  /** How many nodes have an agent, or are to have one. */
  get nodes(): number {
    return this.#nodes;
  }

  /**
   * To be asked when the program is told to stop. Deleted, or being deleted: yes. Not to be found out (the API
   * server is away, or refuses): no, since a node that keeps its files loses nothing but a refused connection.
   */
  async isForGood(): Promise<boolean> {
    if (this.#isLeaving) return true;
    const { namespace } = this.#daemonSet;
    // Side by side: an API server that hangs may cost the time of one answer, of which there is little now.
    const gone = await Promise.all([
      this.#isGone('DaemonSet', () => this.#kubernetes.read('daemonsets', this.#daemonSet)),
      this.#isGone('Namespace', () => this.#kubernetes.read('namespaces', { name: namespace })),
    ]);
    return this.#isLeaving || gone.includes(true);
  }

  close(): void {
    this.#watch.close();
  }

  async #isGone(kind: string, read: () => Promise<Deletable>): Promise<boolean> {
    try {
      return isBeingDeleted(await read());
    } catch (error) {
      if (statusOf(error) === 404) return true;
      this.#log.warn({ err: apiProblem(`read the ${kind}`, error) }, 'not known to be deleted');
      return false;
    }
  }
}

interface Deletable {
  readonly metadata?: { readonly deletionTimestamp?: string };
}

function isBeingDeleted({ metadata }: Deletable): boolean {
  return metadata?.deletionTimestamp !== undefined;
}
