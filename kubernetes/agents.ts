import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { MIRROR_LABEL, REASON_ANNOTATION } from './node-annotations.ts';

/** One agent's Pod. */
export interface AgentPod {
  readonly name: string;
  /** Empty when it was not put on a node yet. */
  readonly node: string;
  /** Of the node, on whose network the agent is. */
  readonly hostIp: string;
  readonly ready: boolean;
}

/** The agents' DaemonSet. */
export interface Agents {
  readonly uid: string;
  /** What selects its Pods. */
  readonly selector: string;
}

/** `undefined` when there is no such DaemonSet. @throws Error of the API. */
export async function readAgents(kubernetes: Kubernetes, daemonSet: ObjectName): Promise<Agents | undefined> {
  try {
    const { metadata, spec } = await kubernetes.read('daemonsets', daemonSet);
    return { uid: metadata?.uid ?? '', selector: selectorText(spec?.selector ?? {}) };
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read DaemonSet ${daemonSet.namespace}/${daemonSet.name}`, error);
  }
}

type LabelSelector = NonNullable<ObjectOf<'daemonsets'>['spec']>['selector'];

/** A selector as a query has it (kubernetes.io/docs/concepts/overview/working-with-objects/labels). */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  const labels = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  const expressions = matchExpressions.map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(',')})`;
  });
  return [...labels, ...expressions].join(',');
}

/** @throws Error of the API. */
export async function podsWith(
  kubernetes: Kubernetes,
  namespace: string,
  labelSelector: string,
): Promise<readonly AgentPod[]> {
  const { items } = await kubernetes.list('pods', { namespace, labelSelector }).catch((error: unknown) => {
    throw apiProblem(`list the agents' Pods in ${namespace}`, error);
  });
  return items.map(({ metadata, spec, status }) => ({
    name: metadata?.name ?? '',
    node: spec?.nodeName ?? '',
    hostIp: status?.hostIP ?? '',
    ready: isTrue(status?.conditions, 'Ready'),
  }));
}

/** Deletes the DaemonSet; its Pods are told to stop while it is still there. @throws Error of the API. */
export async function deleteDaemonSet(kubernetes: Kubernetes, daemonSet: ObjectName): Promise<void> {
  try {
    await kubernetes.remove('daemonsets', daemonSet, { propagationPolicy: 'Foreground' });
  } catch (error) {
    if (statusOf(error) !== 404)
      throw apiProblem(`delete DaemonSet ${daemonSet.namespace}/${daemonSet.name}`, error);
  }
}

/** A node that weir has labelled. */
export interface LabelledNode {
  readonly name: string;
  /** Why weir is not in order there, as the node itself says. */
  readonly reason?: string;
  /** Whether its kubelet still reports. */
  readonly isReady: boolean;
}

/** The nodes that have weir's label. @throws Error of the API. */
export async function labelledNodes(kubernetes: Kubernetes): Promise<readonly LabelledNode[]> {
  const { items } = await kubernetes
    .list('nodes', { labelSelector: MIRROR_LABEL })
    .catch((error: unknown) => {
      throw apiProblem('list the nodes', error);
    });
  return items.map(({ metadata, status }) => {
    const reason = metadata?.annotations?.[REASON_ANNOTATION];
    return {
      name: metadata?.name ?? '',
      isReady: isTrue(status?.conditions, 'Ready'),
      ...(reason === undefined ? {} : { reason }),
    };
  });
}

function isTrue(
  conditions: readonly { readonly type: string; readonly status: string }[] = [],
  wanted: string,
): boolean {
  return conditions.some(({ type, status }) => type === wanted && status === 'True');
}
