import { apiProblem, type Kubernetes, type ObjectName, statusOf } from './client.ts';

/** One agent's Pod. */
export interface AgentPod {
  readonly name: string;
  readonly node: string;
  /** Of the node, on whose network the agent is. */
  readonly hostIp: string;
  readonly ready: boolean;
}

/** The Pods of the agents' DaemonSet; `undefined` when there is no such DaemonSet. @throws Error of the API. */
export async function agentPods(
  kubernetes: Kubernetes,
  daemonSet: ObjectName,
): Promise<readonly AgentPod[] | undefined> {
  const selector = await selectorOf(kubernetes, daemonSet);
  return selector === undefined ? undefined : podsWith(kubernetes, daemonSet.namespace, selector);
}

/** The label selector of a DaemonSet's Pods; `undefined` when there is no such DaemonSet. @throws Error of the API. */
export async function selectorOf({ apps }: Kubernetes, daemonSet: ObjectName): Promise<string | undefined> {
  try {
    const { spec } = await apps.readNamespacedDaemonSet(daemonSet);
    const labels = Object.entries(spec?.selector.matchLabels ?? {});
    return labels.map(([key, value]) => `${key}=${value}`).join(',');
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read DaemonSet ${daemonSet.namespace}/${daemonSet.name}`, error);
  }
}

/** @throws Error of the API. */
export async function podsWith(
  { core }: Kubernetes,
  namespace: string,
  labelSelector: string,
): Promise<readonly AgentPod[]> {
  const { items } = await core.listNamespacedPod({ namespace, labelSelector }).catch((error: unknown) => {
    throw apiProblem(`list the agents' Pods in ${namespace}`, error);
  });
  return items.map(({ metadata, spec, status }) => ({
    name: metadata?.name ?? '',
    node: spec?.nodeName ?? '',
    hostIp: status?.hostIP ?? '',
    ready: status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') ?? false,
  }));
}

/** Deletes the DaemonSet; its Pods are told to stop while it is still there. @throws Error of the API. */
export async function deleteDaemonSet({ apps }: Kubernetes, daemonSet: ObjectName): Promise<void> {
  try {
    await apps.deleteNamespacedDaemonSet({ ...daemonSet, propagationPolicy: 'Foreground' });
  } catch (error) {
    if (statusOf(error) !== 404)
      throw apiProblem(`delete DaemonSet ${daemonSet.namespace}/${daemonSet.name}`, error);
  }
}

/** The names of the nodes that have this label. @throws Error of the API. */
export async function nodesWith({ core }: Kubernetes, labelSelector: string): Promise<readonly string[]> {
  const { items } = await core.listNode({ labelSelector }).catch((error: unknown) => {
    throw apiProblem('list the nodes', error);
  });
  return items.map(({ metadata }) => metadata?.name ?? '');
}
