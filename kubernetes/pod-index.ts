import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** A Pod that is on no node yet. */
const UNSCHEDULED = 'spec.nodeName=';

type Pod = ObjectOf<'pods'>;

/** The Pods that wait for a node, in memory: what a scheduler binds next is among them. */
export class WaitingPods {
  readonly #watch: ObjectWatch<'pods'>;
  #pods: readonly Pod[] | undefined;
  /** Made when it is needed: there may be many changes between two questions. */
  #byName: ReadonlyMap<string, Pod> | undefined;

  constructor(kubernetes: Kubernetes, log: Logger, known: () => void) {
    this.#watch = new ObjectWatch<'pods'>({
      kubernetes,
      what: 'Pods that wait for a node',
      collection: 'pods',
      selection: { fieldSelector: UNSCHEDULED },
      changed: (pods) => {
        this.#pods = pods;
        this.#byName = undefined;
        known();
      },
      log,
    });
  }

  find({ namespace, name }: ObjectName): Pod | undefined {
    this.#byName ??= new Map((this.#pods ?? []).map((pod) => [keyOf(pod), pod]));
    return this.#byName.get(`${namespace}/${name}`);
  }

  close(): void {
    this.#watch.close();
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

function keyOf({ metadata }: Pod): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
}
