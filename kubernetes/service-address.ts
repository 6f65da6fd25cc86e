import { isIPv6 } from 'node:net';
import type { V1Service } from '@kubernetes/client-node';
import { apiProblem, type Kubernetes, type ObjectName } from './client.ts';

/**
 * The URL under which a node reaches a Service: by its cluster IP, or by a port of the node itself.
 *
 * @throws Error when the Service cannot be read, or has no such address.
 */
export async function serviceUrl(
  kubernetes: Kubernetes,
  service: ObjectName,
  by: { readonly kind: 'service' } | { readonly kind: 'nodePort'; readonly nodeAddress: string },
): Promise<string> {
  const place = `Service ${service.namespace}/${service.name}`;
  const found = await kubernetes.core.readNamespacedService(service).catch((error: unknown) => {
    throw apiProblem(`read ${place}`, error);
  });
  return urlOfService(found, place, by);
}

/** @throws Error when the Service has no such address. */
export function urlOfService(
  { spec }: V1Service,
  place: string,
  by: { readonly kind: 'service' } | { readonly kind: 'nodePort'; readonly nodeAddress: string },
): string {
  const port = spec?.ports?.[0];
  if (by.kind === 'nodePort') {
    if (port?.nodePort === undefined) throw new Error(`${place} has no node port; set nodePort.enabled`);
    return `http://${bracketed(by.nodeAddress)}:${port.nodePort}`;
  }
  const address = spec?.clusterIP;
  if (address === undefined || address === '' || address === 'None' || port === undefined)
    throw new Error(`${place} has no cluster IP, so that nodes cannot reach the registry by it`);
  return `http://${bracketed(address)}:${port.port}`;
}

function bracketed(address: string): string {
  return isIPv6(address) ? `[${address}]` : address;
}
