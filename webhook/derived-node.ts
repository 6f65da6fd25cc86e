import type { Pod } from './pod.ts';

/** How a Pod that is being made tells where it will run. */
export type DerivedNode =
  | { readonly kind: 'name'; readonly name: string }
  /** The value of the label `kubernetes.io/hostname`, which is mostly, and not always, the node's name. */
  | { readonly kind: 'hostname'; readonly hostname: string }
  | { readonly kind: 'unknown' };

const HOSTNAME_LABEL = 'kubernetes.io/hostname';

/**
 * The node that a Pod is bound to, or can only run on: `spec.nodeName`, what the DaemonSet controller writes (an affinity
 * to the same `metadata.name` in every term, since any one of them is enough), or a selector by the host's name.
 */
export function derivedNode({ spec }: Pod): DerivedNode {
  if (spec.nodeName) return { kind: 'name', name: spec.nodeName };
  const terms =
    spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
  const names = terms.map(({ matchFields }) => {
    const field = (matchFields ?? []).find(
      ({ key, operator }) => key === 'metadata.name' && operator === 'In',
    );
    return field?.values?.length === 1 ? field.values[0] : undefined;
  });
  const [name] = names;
  if (name !== undefined && names.every((other) => other === name)) return { kind: 'name', name };
  const hostname = spec.nodeSelector?.[HOSTNAME_LABEL];
  return hostname === undefined ? { kind: 'unknown' } : { kind: 'hostname', hostname };
}
