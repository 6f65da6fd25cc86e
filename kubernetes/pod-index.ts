import { PatchStrategy, setHeaderOptions, type V1Pod } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { apiProblem, type Kubernetes, type ObjectName, statusOf } from './client.ts';
import { ObjectWatch } from './object-watch.ts';
import type { WebhookApi } from './webhook-api.ts';

/** A Pod that is on no node yet. */
const UNSCHEDULED = 'spec.nodeName=';
const JSON_PATCH = setHeaderOptions('Content-Type', PatchStrategy.JsonPatch);

/** The Pods that wait for a node, in memory: what a scheduler binds next is among them. */
export class WaitingPods {
  readonly #watch: ObjectWatch<V1Pod>;
  #pods: readonly V1Pod[] | undefined;
  /** Made when it is needed: there may be many changes between two questions. */
  #byName: ReadonlyMap<string, V1Pod> | undefined;

  constructor(kubernetes: Kubernetes, log: Logger, known: () => void) {
    this.#watch = new ObjectWatch<V1Pod>({
      kubernetes,
      what: 'Pods that wait for a node',
      path: '/api/v1/pods',
      list: () => kubernetes.core.listPodForAllNamespaces({ fieldSelector: UNSCHEDULED }),
      fieldSelector: UNSCHEDULED,
      changed: (pods) => {
        this.#pods = pods;
        this.#byName = undefined;
        known();
      },
      log,
    });
  }

  find({ namespace, name }: ObjectName): V1Pod | undefined {
    this.#byName ??= new Map((this.#pods ?? []).map((pod) => [keyOf(pod), pod]));
    return this.#byName.get(`${namespace}/${name}`);
  }

  close(): void {
    this.#watch.close();
  }
}

/** `undefined` when there is no such Pod. @throws Error of the API. */
export async function readPod(
  { core }: Pick<WebhookApi, 'core'>,
  place: ObjectName,
): Promise<V1Pod | undefined> {
  try {
    return await core.readNamespacedPod({ namespace: place.namespace, name: place.name });
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read Pod ${place.namespace}/${place.name}`, error);
  }
}

/**
 * Changes a Pod by a JSON Patch.
 *
 * @returns `changed` when one of the patch's tests fails. @throws Error of the API.
 */
export async function patchPod(
  { core }: Pick<WebhookApi, 'core'>,
  { namespace, name }: ObjectName,
  patch: readonly object[],
): Promise<'patched' | 'changed' | 'gone'> {
  try {
    await core.patchNamespacedPod({ namespace, name, body: patch }, JSON_PATCH);
    return 'patched';
  } catch (error) {
    const status = statusOf(error);
    if (status === 404) return 'gone';
    // A test that fails makes the patch one that cannot be processed.
    if (status === 409 || status === 422) return 'changed';
    throw apiProblem(`patch Pod ${namespace}/${name}`, error);
  }
}

function keyOf({ metadata }: V1Pod): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
}
