import type { Config } from '../config/config.ts';
import { fits } from './glob.ts';
import type { Pod } from './pod.ts';

/** On a Pod or a namespace, `"false"` keeps its images as they are. */
export const OPT_OUT_ANNOTATION = 'weir.dev/rewrite';

/** Why a Pod is none of the webhook's business. */
export type Exemption = 'disabled' | 'never' | 'namespace' | 'opt-out' | 'own' | 'static' | 'owner';

export interface Surroundings {
  readonly config: Config;
  readonly namespace: string;
  /** Of the release, whose Pods must start without the webhook. */
  readonly ownNamespace: string;
  /** Whether the namespace has the annotation. */
  readonly namespaceOptsOut: boolean;
}

const PART_OF_LABEL = 'app.kubernetes.io/part-of';
const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror';
const SOURCE_ANNOTATION = 'kubernetes.io/config.source';

/** Owners whose Pods belong to a StatefulSet that belongs to them, by the label that those Pods have. */
const OWNERS_BY_LABEL = [
  { apiVersion: 'asdb.aerospike.com/v1', kind: 'AerospikeCluster', label: 'aerospike.com/cr' },
];

/** `undefined` when the images of this Pod may be looked at. */
export function exemptionOf(pod: Pod, around: Surroundings): Exemption | undefined {
  const { config, namespace, ownNamespace, namespaceOptsOut } = around;
  const { labels, annotations, ownerReferences } = pod.metadata;
  if (!config.enabled) return 'disabled';
  if (config.fallback === 'never') return 'never';
  if (namespace === ownNamespace || labels?.[PART_OF_LABEL] === 'weir') return 'own';
  if (!includes(config, namespace)) return 'namespace';
  if (namespaceOptsOut || annotations?.[OPT_OUT_ANNOTATION] === 'false') return 'opt-out';
  // A static Pod is what a file of the node says; the API has only its mirror image.
  const source = annotations?.[SOURCE_ANNOTATION];
  if (annotations?.[MIRROR_ANNOTATION] !== undefined || (source !== undefined && source !== 'api'))
    return 'static';
  const owners = [...(ownerReferences ?? []), ...OWNERS_BY_LABEL.filter(({ label }) => labels?.[label])];
  if (owners.some((owner) => isSkipped(config.skipOwners, owner))) return 'owner';
  return undefined;
}

/** Whether Pods of this namespace are to be looked at; leaving out beats letting in. */
export function includes(config: Config, namespace: string): boolean {
  return fits(config.includeNamespaces, namespace) && !fits(config.excludeNamespaces, namespace);
}

function isSkipped(skipOwners: readonly string[], owner: { apiVersion: string; kind: string }): boolean {
  const [group = '', version] = owner.apiVersion.split('/');
  const suffix = version === undefined ? '' : `.${group}`;
  return skipOwners.includes(`${owner.kind}${suffix}`) || skipOwners.includes(`*${suffix}`);
}
