import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { ObjectFeed } from './object-feed.ts';

/** A Pod that is on no node yet. */
const UNSCHEDULED = 'spec.nodeName=';

/** So that no list of a large cluster is in memory as a whole. */
const PAGE_SIZE = 500;

type Pod = ObjectOf<'pods'>;

export interface WaitingPodsOptions<Kept> {
  readonly kubernetes: Kubernetes;
  /** What of a Pod is remembered; a Pod of which that is nothing is not found. */
  readonly keep: (pod: Pod) => Kept | undefined;
  /** All of them are known. */
  readonly known: () => void;
  readonly log: Logger;
}

/** The Pods that wait for a node, in memory: what a scheduler binds next is among them. */
export class WaitingPods<Kept> {
  readonly #feed: ObjectFeed<'pods'>;
  readonly #pods = new Map<string, Kept>();

  constructor({ kubernetes, keep, known, log }: WaitingPodsOptions<Kept>) {
    this.#feed = new ObjectFeed<'pods'>({
      kubernetes,
      what: 'Pods that wait for a node',
      collection: 'pods',
      selection: { fieldSelector: UNSCHEDULED },
      pageSize: PAGE_SIZE,
      sink: {
        put: (key, pod) => {
          const kept = keep(pod);
          if (kept === undefined) this.#pods.delete(key);
          else this.#pods.set(key, kept);
        },
        remove: (key) => this.#pods.delete(key),
        keepOnly: (keys) => {
          for (const key of this.#pods.keys()) if (!keys.has(key)) this.#pods.delete(key);
          known();
        },
      },
      log,
    });
  }

  find({ namespace, name }: ObjectName): Kept | undefined {
    return this.#pods.get(`${namespace}/${name}`);
  }

  close(): void {
    this.#feed.close();
  }
}

/** `undefined` when there is no such Pod. @throws Error of the API. */
export async function readPod(
  kubernetes: Kubernetes,
  { namespace, name }: ObjectName,
): Promise<Pod | undefined> {
  try {
    return await kubernetes.read('pods', { namespace, name });
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read Pod ${namespace}/${name}`, error);
  }
}

/**
 * Changes a Pod by a JSON Patch.
 *
 * @returns `changed` when one of the patch's tests fails. @throws Error of the API.
 */
export async function patchPod(
  kubernetes: Kubernetes,
  { namespace, name }: ObjectName,
  patch: readonly object[],
): Promise<'patched' | 'changed' | 'gone'> {
  try {
    await kubernetes.patch('pods', { namespace, name }, { json: patch });
    return 'patched';
  } catch (error) {
    const status = statusOf(error);
    if (status === 404) return 'gone';
    // A test that fails makes the patch one that cannot be processed.
    if (status === 409 || status === 422) return 'changed';
    throw apiProblem(`patch Pod ${namespace}/${name}`, error);
  }
}
