import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import { ObjectWatch } from './object-watch.ts';

/** What a node says of itself, as far as its images are concerned. */
export interface NodeFacts {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** `containerd://2.3.7` */
  readonly runtimeVersion: string;
  /** The one at which other machines of the cluster reach it; empty when it has none. */
  readonly address: string;
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
}): ObjectWatch<'nodes'> {
  const { kubernetes, labelSelector, changed, log } = options;
  // Of thousands, one changes at a time.
  const known = new WeakMap<ObjectOf<'nodes'>, NodeFacts>();
  const factsAbout = (node: ObjectOf<'nodes'>): NodeFacts => {
    const facts = known.get(node) ?? factsOf(node);
    known.set(node, facts);
    return facts;
  };
  return new ObjectWatch<'nodes'>({
    kubernetes,
    what: `Nodes with ${labelSelector}`,
    collection: 'nodes',
    selection: { labelSelector },
    changed: (nodes) => changed(nodes.map(factsAbout)),
    log,
  });
}

/** A node that is being deleted is one as long as it is there. */
function factsOf({ metadata, status }: ObjectOf<'nodes'>): NodeFacts {
  return {
    name: metadata?.name ?? '',
    labels: metadata?.labels ?? {},
    annotations: metadata?.annotations ?? {},
    runtimeVersion: status?.nodeInfo?.containerRuntimeVersion ?? '',
    address: (status?.addresses ?? []).find(({ type }) => type === 'InternalIP')?.address ?? '',
    imageNames: (status?.images ?? []).flatMap(({ names }) => names ?? []),
  };
}
