import type { ObjectName } from '../kubernetes/client.ts';
import { isLoopback, parseAuthority } from '../oci/host.ts';
import { isOnDockerHub } from '../oci/reference.ts';
import { UsageError } from '../process/lifecycle.ts';
import { type Address, parseAddress } from '../process/server.ts';
import type { WebhookService } from '../webhook/registration.ts';
import type { RegistryPlace } from '../webhook/rewrite.ts';
import { parseObjectName } from './object-name.ts';

export interface WebhookFlags {
  readonly configMap: string;
  readonly listen: string;
  readonly status: string;
  /** The registry's origin, as the webhook reaches it. */
  readonly registry: string;
  /** A file with the authorities that sign its certificate. */
  readonly registryCa?: string;
  /** The webhook's own Service. */
  readonly service: string;
  readonly servicePort: string;
  /** The registration belongs to it, is called as it is, and goes with it. */
  readonly clusterRole: string;
  /** In the Service's namespace, as the Lease is. */
  readonly secret: string;
  readonly lease: string;
  readonly certDir?: string;
  readonly fallbackNodeSelector?: string;
  readonly rewriteTo: string;
  /** Of every node, where its agent tells how it is. */
  readonly agentPort: string;
}

/** The flags of `weir webhook`, read. */
export interface WebhookSettings {
  readonly configMap: ObjectName;
  readonly listen: Address;
  readonly status: Address;
  readonly registry: RegistryPlace;
  readonly registryCa: string | undefined;
  readonly service: WebhookService;
  readonly clusterRole: string;
  readonly secret: ObjectName;
  readonly lease: ObjectName;
  readonly certDir: string | undefined;
  readonly fallbackNodeSelector: string;
  readonly agentPort: number;
}

/** @throws UsageError that names the flag. */
export function readWebhookFlags(flags: WebhookFlags): WebhookSettings {
  const service = {
    ...parseObjectName(flags.service, '--service'),
    port: portOf('--service-port', flags.servicePort),
  };
  const { namespace } = service;
  return {
    configMap: parseObjectName(flags.configMap, '--config-map'),
    listen: parseAddress(flags.listen),
    status: parseAddress(flags.status),
    registry: placeOf(originOf(flags.registry), hostOf(flags.rewriteTo)),
    registryCa: registryCaOf(flags),
    service,
    clusterRole: flags.clusterRole,
    secret: parseObjectName(`${namespace}/${flags.secret}`, '--secret'),
    lease: parseObjectName(`${namespace}/${flags.lease}`, '--lease'),
    certDir: flags.certDir,
    fallbackNodeSelector: flags.fallbackNodeSelector ?? '',
    agentPort: portOf('--agent-port', flags.agentPort),
  };
}

function originOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.pathname !== '/')
    throw new UsageError(
      `--registry takes http://HOST:PORT or https://HOST[:PORT], and "${text}" is not that`,
    );
  return url.origin;
}

function registryCaOf({ registry, registryCa }: WebhookFlags): string | undefined {
  if (registryCa !== undefined && !registry.startsWith('https://'))
    throw new UsageError(`--registry-ca is for --registry https://HOST[:PORT], and that is "${registry}"`);
  return registryCa;
}

function hostOf(text: string): string {
  const host = parseAuthority(text);
  if (host === undefined) throw new UsageError(`--rewrite-to takes HOST[:PORT], and "${text}" is not that`);
  if (isOnDockerHub(host))
    throw new UsageError(
      `--rewrite-to ${host} would be Docker Hub in the name of an image: name a host with a dot or a port`,
    );
  return host;
}

/** On the loopback there is nothing but the door. */
function placeOf(url: string, rewriteTo: string): RegistryPlace {
  return { url, rewriteTo, ...(isLoopback(rewriteTo) ? { door: rewriteTo } : {}) };
}

function portOf(flag: string, text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw new UsageError(`${flag} takes a port, and "${text}" is none`);
  return port;
}
