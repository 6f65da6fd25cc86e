import { isIP } from 'node:net';
import type { Logger } from 'pino';
import { Door } from '../agent/door.ts';
import { restoreNode } from '../agent/restore-node.ts';
import { KNOWN_CERTS_DIRS } from '../agent/runtimes/known-directories.ts';
import type { NodePlace } from '../agent/state.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { watchReplicas } from '../kubernetes/replicas.ts';
import { AddressUnknown, serviceUrl, watchServiceUrl } from '../kubernetes/service-address.ts';
import { Authorities } from '../process/authorities.ts';
import { describe, UsageError } from '../process/lifecycle.ts';
import type { Registry as Metrics } from '../process/metrics.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { type Address, parseAddress } from '../process/server.ts';
import { checkMirrorCa, type MirrorUrl, mirrorUrl } from './mirror-url.ts';
import { parseObjectName } from './object-name.ts';

export interface MirrorFlags {
  readonly registryService?: string;
  /** Of the registry, instead of those behind a Service. */
  readonly replica?: readonly string[];
  /** A file with the authorities that sign its certificates; it then speaks TLS. */
  readonly registryCa?: string;
  readonly door?: string;
  /** `service`, `nodePort` or a URL, instead of the door. */
  readonly mirror?: string;
  /** A file with the authority that signs the certificate of a URL. */
  readonly mirrorCa?: string;
  readonly hostIp?: string;
}

/** A port that is taken, or a Service that is not there yet, is tried again this often. */
const RETRY_MS = 3_000;

/** What the files of a node are to name. */
export type WantedMirror =
  | WantedDoor
  | { readonly kind: 'service'; readonly service: ObjectName }
  | { readonly kind: 'nodePort'; readonly service: ObjectName; readonly nodeAddress: string }
  | ({ readonly kind: 'url' } & MirrorUrl);

interface WantedDoor {
  readonly kind: 'door';
  readonly address: Address;
  readonly replicas: ObjectName | readonly Address[];
  /** The file with the authorities by which replicas are known. */
  readonly registryCa?: string;
}

/** @throws UsageError when the flags do not say what files are to name. */
export async function wantedMirror(flags: MirrorFlags): Promise<WantedMirror> {
  const { door, mirror, mirrorCa, registryService, replica, registryCa, hostIp } = flags;
  if ((door === undefined) === (mirror === undefined))
    throw new UsageError('give either --door HOST:PORT or --mirror service|nodePort|URL');
  checkMirrorCa(mirror, mirrorCa);
  if (replica !== undefined && (door === undefined || registryService !== undefined))
    throw new UsageError('--replica is for --door, instead of --registry-service');
  if (registryCa !== undefined && door === undefined)
    throw new UsageError('--registry-ca is for --door: for --mirror https://HOST it is --mirror-ca');
  const service = (): ObjectName => {
    if (registryService === undefined)
      throw new UsageError(
        `--registry-service is missing${door === undefined ? '' : ', or --replica HOST:PORT of each replica'}`,
      );
    return parseObjectName(registryService, '--registry-service');
  };
  if (door !== undefined)
    return {
      kind: 'door',
      address: doorAddress(door),
      replicas: replica?.map(replicaAddress) ?? service(),
      ...(registryCa === undefined ? {} : { registryCa }),
    };
  if (mirror === 'service') return { kind: 'service', service: service() };
  if (mirror === 'nodePort') {
    if (hostIp === undefined || isIP(hostIp) === 0)
      throw new UsageError('--mirror nodePort needs --host-ip with the address of the node');
    return { kind: 'nodePort', service: service(), nodeAddress: hostIp };
  }
  return { kind: 'url', ...(await mirrorUrl(mirror ?? '', mirrorCa)) };
}

/** Whoever reaches the door may pull with the registry's credentials. */
function doorAddress(text: string): Address {
  const address = parseAddress(text);
  if (!LOOPBACK.test(address.host) || address.port === 0)
    throw new UsageError(
      `--door takes an address that only this node reaches, such as 127.0.0.1:5700, not "${text}"`,
    );
  return address;
}

function replicaAddress(text: string): Address {
  const address = parseAddress(text);
  if (address.host === '' || address.port === 0)
    throw new UsageError(`--replica takes the HOST:PORT of one replica of the registry, not "${text}"`);
  return address;
}

const LOOPBACK = /^(?:127(?:\.\d{1,3}){3}|::1|localhost)$/;

export interface OpenMirror extends MirrorUrl {
  /** Rejects when files have to name another address from now on. */
  readonly moved: Promise<never>;
  close(): Promise<void>;
}

/** What files are to name; waits for it, and has the node without our files meanwhile. `undefined`: told to stop. */
export async function openMirror(options: {
  readonly wanted: WantedMirror;
  readonly kubernetes: Kubernetes;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly stop: AbortSignal;
  readonly place: NodePlace;
  readonly refused: (problem: string) => void;
}): Promise<OpenMirror | undefined> {
  const { stop, place, refused } = options;
  let last = '';
  while (!stop.aborted) {
    try {
      return await tryMirror(options);
    } catch (error) {
      const problem = describe(error);
      // Files of a former run would send pulls to whoever holds that address now; but that it cannot be asked for
      // at the moment is no sign of that.
      if (!(error instanceof AddressUnknown))
        await restoreNode(place, KNOWN_CERTS_DIRS).catch((cause: unknown) =>
          place.log.error({ err: cause }, 'the files stay'),
        );
      if (problem !== last) refused(problem);
      last = problem;
    }
    await pauseUnlessStopped(RETRY_MS, stop);
  }
  return undefined;
}

async function tryMirror({
  wanted,
  kubernetes,
  metrics,
  log,
}: {
  readonly wanted: WantedMirror;
  readonly kubernetes: Kubernetes;
  readonly metrics: Metrics;
  readonly log: Logger;
}): Promise<OpenMirror> {
  if (wanted.kind === 'url') return { ...wanted, moved: NEVER, close: nothingToClose };
  if (wanted.kind !== 'door') {
    const url = await serviceUrl(kubernetes, wanted.service, wanted);
    const moved = Promise.withResolvers<never>();
    moved.promise.catch(() => undefined);
    const watch = watchServiceUrl({
      kubernetes,
      service: wanted.service,
      by: wanted,
      log,
      changed(now) {
        if (now !== url)
          moved.reject(new Error(`files name ${url}, and now it is ${now}; the agent starts again`));
      },
    });
    return { url, moved: moved.promise, close: async () => watch.close() };
  }
  return await openDoor(wanted, { kubernetes, metrics, log });
}

async function openDoor(
  { address, replicas: named, registryCa }: WantedDoor,
  { metrics, ...to }: { readonly kubernetes: Kubernetes; readonly metrics: Metrics; readonly log: Logger },
): Promise<OpenMirror> {
  await using failed = new AsyncDisposableStack();
  const authorities = registryCa === undefined ? undefined : await Authorities.open(registryCa, to.log);
  failed.defer(() => authorities?.close());
  const trust = authorities && (() => ({ context: authorities.context, ...certificateName(named) }));
  const door = await Door.open({ address, metrics, log: to.log, trust });
  const replicas = nameReplicas(door, named, to);
  const opened = failed.move();
  return {
    url: door.url,
    moved: NEVER,
    async close() {
      replicas.close();
      await door.close();
      await opened.disposeAsync();
    },
  };
}

/** Replicas of a Service are reached by their Pods' addresses, which are in no certificate. */
function certificateName(replicas: ObjectName | readonly Address[]): { readonly serverName?: string } {
  return 'name' in replicas ? { serverName: `${replicas.name}.${replicas.namespace}.svc` } : {};
}

/** Of a list, the door itself finds out who is ready. */
function nameReplicas(
  door: Door,
  replicas: ObjectName | readonly Address[],
  to: { readonly kubernetes: Kubernetes; readonly log: Logger },
): { close(): void } {
  if ('name' in replicas)
    return watchReplicas({ ...to, service: replicas, changed: (ready) => door.setReplicas(ready) });
  door.setReplicas(replicas);
  return { close: () => undefined };
}

const NEVER = new Promise<never>(() => undefined);

function nothingToClose(): Promise<void> {
  return Promise.resolve();
}
