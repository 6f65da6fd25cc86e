import { isIPv6 } from 'node:net';
import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** By its cluster IP, or by a port of the node itself. */
export type ReachedBy =
  | { readonly kind: 'service' }
  | { readonly kind: 'nodePort'; readonly nodeAddress: string };

/** The API server cannot say what the address is, which says nothing about the address. */
export class AddressUnknown extends Error {
  override readonly name = 'AddressUnknown';
}

/**
 * The URL under which a node reaches a Service.
 *
 * @throws AddressUnknown when the Service cannot be read, Error when it is not there or has no such address.
 */
export async function serviceUrl(
  kubernetes: Kubernetes,
  service: ObjectName,
  by: ReachedBy,
): Promise<string> {
  const place = placeOf(service);
  const found = await kubernetes.read('services', service).catch((error: unknown) => {
    const problem = apiProblem(`read ${place}`, error);
    throw statusOf(error) === 404 ? problem : new AddressUnknown(problem.message, { cause: problem.cause });
  });
  return urlOfService(found, place, by);
}

/** Tells of the URL of a Service, or what became of it, whenever the Service changes. */
export function watchServiceUrl(options: {
  readonly kubernetes: Kubernetes;
  readonly service: ObjectName;
  readonly by: ReachedBy;
  readonly changed: (url: string) => void;
  readonly log: Logger;
}): ObjectWatch<'services'> {
  const { kubernetes, service, by, log } = options;
  const { namespace, name } = service;
  const fieldSelector = `metadata.name=${name}`;
  const place = placeOf(service);
  return new ObjectWatch<'services'>({
    kubernetes,
    what: place,
    collection: 'services',
    selection: { namespace, fieldSelector },
    changed: ([found]) => options.changed(found === undefined ? 'gone' : urlOrProblem(found, place, by)),
    log,
  });
}

function placeOf({ namespace, name }: ObjectName): string {
  return `Service ${namespace}/${name}`;
}

function urlOrProblem(service: ObjectOf<'services'>, place: string, by: ReachedBy): string {
  try {
    return urlOfService(service, place, by);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** @throws Error when the Service has no such address. */
export function urlOfService({ spec }: ObjectOf<'services'>, place: string, by: ReachedBy): string {
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
