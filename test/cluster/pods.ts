// Pods as a user writes them, and who pulled their images.

import type { Cluster } from './cluster.ts';

const WAIT = '--timeout=60s';

/** A Pod on that node, as an object to apply. */
export function pod(name: string, nodeName: string, image: string, more: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name.replace(/-node\d$/, '') } },
    spec: { nodeName, containers: [{ name: 'main', image }], terminationGracePeriodSeconds: 1, ...more },
  };
}

interface WantedPod {
  readonly name: string;
  readonly node: string;
  readonly image: string;
  readonly more?: object;
}

/**
 * Runs Pods and waits until they are ready.
 *
 * @throws Error with their Events when that takes too long.
 */
export async function startPods(cluster: Cluster, ...wanted: readonly WantedPod[]): Promise<void> {
  const names = wanted.map(({ name }) => name);
  await cluster.apply(wanted.map(({ name, node, image, more }) => pod(name, node, image, more)));
  try {
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod', ...names, WAIT);
  } catch (error) {
    const events = await cluster.kubectl('events');
    const own = events.split('\n').filter((line) => names.some((name) => line.includes(`Pod/${name} `)));
    throw new Error(`Pods ${names.join(', ')} did not get ready\n${own.join('\n')}`, { cause: error });
  }
}

/** Who fetched manifests or blobs of a repository from its upstream: nodes by their names, and `mirror` for the registry. */
export async function fetchersOf(
  cluster: Cluster,
  registry: string,
  repository: string,
): Promise<readonly string[]> {
  const log = await cluster.upstreamLog(registry);
  const own = log.filter(({ path, method }) => method === 'GET' && path.startsWith(`/v2/${repository}/`));
  const names = own.map(({ client }) => cluster.nodes.find(({ address }) => address === client)?.name);
  return [...new Set(names.map((name) => name ?? 'mirror'))].toSorted();
}
