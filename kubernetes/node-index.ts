import type { V1Node } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import type { Kubernetes } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** What a node says of itself, as far as its images are concerned. */
export interface NodeFacts {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** `containerd://2.3.7` */
  readonly runtimeVersion: string;
  readonly imageNames: readonly string[];
}

/**
 * Tells of the nodes that a selector selects, of all of them whenever one changes: by the same object where nothing
 * changed. Others are not read at all.
 */
export function watchNodes(options: {
  readonly kubernetes: Kubernetes;
  readonly labelSelector: string;
  readonly changed: (nodes: readonly NodeFacts[]) => void;
  readonly log: Logger;
}): ObjectWatch<V1Node> {
  const { kubernetes, labelSelector, changed, log } = options;
  // Of thousands, one changes at a time.
  const known = new WeakMap<V1Node, NodeFacts>();
  const factsAbout = (node: V1Node): NodeFacts => {
    const facts = known.get(node) ?? factsOf(node);
    known.set(node, facts);
    return facts;
  };
  return new ObjectWatch<V1Node>({
    kubernetes,
    what: `Nodes with ${labelSelector}`,
    path: '/api/v1/nodes',
    list: () => kubernetes.core.listNode({ labelSelector }),
    labelSelector,
    changed: (nodes) => changed(nodes.map(factsAbout)),
    log,
  });
}

/** A node that is being deleted is one as long as it is there. */
function factsOf({ metadata, status }: V1Node): NodeFacts {
  return {
    name: metadata?.name ?? '',
    labels: metadata?.labels ?? {},
    annotations: metadata?.annotations ?? {},
    runtimeVersion: status?.nodeInfo?.containerRuntimeVersion ?? '',
    imageNames: (status?.images ?? []).flatMap(({ names }) => names ?? []),
  };
}
