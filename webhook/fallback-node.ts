import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import { formatReference, parseReference, type Reference } from '../oci/reference.ts';

/** A node on which some images do not go through the mirror unless their names say so. */
export interface FallbackNode {
  readonly name: string;
  /** Its label `kubernetes.io/hostname`. */
  readonly hostname: string;
  /** `containerd`, `docker`, `cri-o`; empty when the kubelet has not said. */
  readonly runtime: string;
  /** At which other machines reach it; empty when that is not known. */
  readonly address: string;
  /** Whether the door of weir's agent is open there, as the agent says. */
  readonly hasDoor: boolean;
  /** Registry hosts that its runtime cannot mirror; `all` on a node that nobody looks after. */
  readonly hosts: ReadonlySet<string> | 'all';
  /** All of the above but names and address, as text: nodes of which it is the same need the same. */
  readonly need: string;
  /** What is there already, by name, as {@link formatReference} writes it. */
  readonly images: ReadonlySet<string>;
}

/** What the Kubernetes API says of a node. */
export interface NodeFacts {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** `containerd://2.3.7` */
  readonly runtimeVersion: string;
  readonly address: string;
  readonly imageNames: readonly string[];
}

export const MIRROR_LABEL = 'weir.dev/mirror';
/** `open` while an agent listens at the door of that node. */
const DOOR_ANNOTATION = 'weir.dev/door';
/** JSON: the state of every upstream on that node, by registry host. */
const UPSTREAMS_ANNOTATION = 'weir.dev/upstreams';
/** States in which a pull goes past the mirror, and nobody decided that it should. */
const PAST_THE_MIRROR: ReadonlySet<string> = new Set(['unsupported', 'unparsable', 'failed', 'bypassed']);

const statesSchema = z.record(z.string(), z.string());

/** `undefined` for a node on which every upstream is mirrored, or left alone on purpose. */
export function fallbackNode(facts: NodeFacts): FallbackNode | undefined {
  const { name, labels, annotations, runtimeVersion, address, imageNames } = facts;
  const label = labels[MIRROR_LABEL];
  if (label !== undefined && label !== 'fallback') return undefined;
  const hosts = label === undefined ? 'all' : hostsIn(annotations[UPSTREAMS_ANNOTATION]);
  if (hosts !== 'all' && hosts.size === 0) return undefined;
  const runtime = runtimeVersion.split('://', 1)[0] ?? '';
  const hasDoor = label !== undefined && annotations[DOOR_ANNOTATION] === 'open';
  return {
    name,
    hostname: labels['kubernetes.io/hostname'] ?? name,
    runtime,
    address,
    hasDoor,
    hosts,
    need: JSON.stringify([runtime, hasDoor, hosts === 'all' ? hosts : [...hosts].toSorted()]),
    images: new Set(imageNames.flatMap(inFull)),
  };
}

/** Of thousands of nodes, one for each need, as if no image was on it. */
export function distinctNeeds(nodes: Iterable<FallbackNode>): readonly FallbackNode[] {
  const byNeed = new Map<string, FallbackNode>();
  for (const node of nodes) if (!byNeed.has(node.need)) byNeed.set(node.need, { ...node, images: new Set() });
  return [...byNeed.values()];
}

/** Whether images of this registry host go past the mirror there. */
export function needsRewriting({ hosts }: FallbackNode, host: string): boolean {
  return hosts === 'all' || hosts.has(host);
}

/** Whether that very image is on the node already. */
export function hasImage({ images }: FallbackNode, reference: Reference): boolean {
  const { host, repository, digest } = reference;
  return images.has(formatReference(digest === undefined ? reference : { host, repository, digest }));
}

/** Nobody but an agent writes it: what cannot be read says nothing. */
function hostsIn(annotation = ''): ReadonlySet<string> {
  const states = statesSchema.safeParse(parseJson(annotation)).data ?? {};
  return new Set(
    Object.entries(states)
      .filter(([, state]) => PAST_THE_MIRROR.has(state))
      .map(([host]) => host),
  );
}

/** The kubelet also names what has no name (`<none>@<none>`). */
function inFull(name: string): string[] {
  try {
    return [formatReference(parseReference(name))];
  } catch {
    return [];
  }
}
