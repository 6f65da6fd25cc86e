import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import type { ObjectName } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** A Pod of the registry that is ready to be asked. */
export interface Replica {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** The port of the registry's Service. */
const PORT_NAME = 'registry';

/** Tells of the ready replicas behind a Service whenever they change. */
export function watchReplicas(options: {
  readonly kubernetes: Kubernetes;
  readonly service: ObjectName;
  readonly changed: (replicas: readonly Replica[]) => void;
  readonly log: Logger;
}): ObjectWatch<'endpointslices'> {
  const { kubernetes, service, log } = options;
  const { namespace, name } = service;
  const labelSelector = `kubernetes.io/service-name=${name}`;
  return new ObjectWatch<'endpointslices'>({
    kubernetes,
    what: `EndpointSlices of Service ${namespace}/${name}`,
    collection: 'endpointslices',
    selection: { namespace, labelSelector },
    changed: (slices) => options.changed(readyReplicas(slices)),
    log,
  });
}

/**
 * The ready addresses in the slices, each Pod once: a dual-stack Service has a slice for each family.
 * A Pod without word of readiness is ready (k8s.io/api/discovery/v1, EndpointConditions.ready).
 */
export function readyReplicas(slices: readonly ObjectOf<'endpointslices'>[]): readonly Replica[] {
  const replicas = new Map<string, Replica>();
  // IPv4 first, so that of a Pod with both it is that one that is kept.
  for (const slice of slices.toSorted((a, b) => a.addressType.localeCompare(b.addressType))) {
    const port = slice.ports?.find(({ name }) => name === PORT_NAME)?.port;
    if (port === undefined || !['IPv4', 'IPv6'].includes(slice.addressType)) continue;
    for (const { addresses, conditions, targetRef } of slice.endpoints ?? []) {
      const [host] = addresses;
      if (host === undefined || conditions?.ready === false) continue;
      const name = targetRef?.name ?? host;
      if (!replicas.has(name)) replicas.set(name, { name, host, port });
    }
  }
  return [...replicas.values()].toSorted((a, b) => a.name.localeCompare(b.name));
}
