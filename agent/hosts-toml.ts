import type { JsonMap } from '@iarna/toml';
import type { Endpoint } from '../config/endpoint.ts';
import type { Route } from '../config/routing.ts';
import { formatHosts, type HostsFile, isSameHost, isTable } from './hosts-file.ts';
import { mark, type Was } from './marker.ts';

/** What a node would go by if weir were not there. */
export interface Found {
  readonly was: Was;
  /** The user's file, or what containerd would have read in its place. */
  readonly file: HostsFile;
}

/**
 * The text of a registry host's hosts.toml: the mirror first, then the user's own hosts, then `server`.
 * `mirror` is the URL of our registry as the nodes reach it, `mirrorCa` the path of its authority, for a file of ours.
 * `undefined`: no file of ours.
 *
 * @throws Error when the text would not be read back as what is meant.
 */
export function renderHosts(
  route: Route,
  mirror: string,
  found: Found,
  mirrorCa?: string,
): string | undefined {
  if (route.kind === 'untouched') return undefined;
  const ours = route.kind === 'node' ? endpointHost(route.mirror) : mirrorHost(mirror);
  const ca = route.kind === 'node' || mirrorCa === undefined ? {} : { ca: mirrorCa };
  const settings: JsonMap = {
    // Never `referrers`, which voids the file on containerd 1.7.
    capabilities: ['pull', 'resolve'],
    ...ours.path,
    ...ca,
    // Known from containerd 2.0.7, ignored before: a mirror that drops packets costs seconds then, not 30 a request.
    dial_timeout: route.kind === 'node' ? DISTANT_DIAL_TIMEOUT : DIAL_TIMEOUT,
  };
  const file: HostsFile = {
    root: route.upstream.direct
      ? directRoot(route.upstream.endpoint, found.file.root)
      : {
          server: ours.url,
          ...ours.path,
          ...ca,
          ...withoutKeys(found.file.root, ['server', ...SERVER_SETTINGS]),
        },
    hosts: new Map([[ours.url, settings], ...othersThan(ours.url, found.file)]),
  };
  return mark(`${NOTE}\n${formatHosts(file)}`, { mirror: ours.url, was: found.was });
}

/** Says to whoever opens the file what its first line is for. */
export const NOTE =
  '# Written by weir. Once you edit it, it is yours: weir leaves it alone. "weir rollback" brings back what was here.';

/** In-cluster addresses answer in milliseconds; one lost SYN is sent again after a second. */
const DIAL_TIMEOUT = '3s';
/** A mirror of the operator's may be an ocean away. */
const DISTANT_DIAL_TIMEOUT = '10s';

/** Everything that containerd's hostFileConfig knows: at the root of a file it describes `server` alone. */
export const SERVER_SETTINGS: readonly string[] = [
  'capabilities',
  'ca',
  'client',
  'skip_verify',
  'header',
  'override_path',
  'dial_timeout',
];
const TLS_SETTINGS = ['ca', 'client', 'skip_verify'];

interface MirrorHost {
  readonly url: string;
  readonly path: { readonly override_path?: true };
}

/**
 * containerd appends `/v2` to a path that does not end in it, unless `override_path` says that the path is the
 * API's root already. It reads the file's root with the same function as a host's table (`parseHostConfig` of
 * core/remotes/docker/config/hosts.go, called with `c.Server` and the embedded `hostFileConfig`, in 1.x as in
 * 2.x), so a root-level `override_path` does for `server` what one in a table does for its host.
 */
function endpointHost({ origin, repositoryPrefix }: Endpoint): MirrorHost {
  return repositoryPrefix === ''
    ? { url: origin, path: {} }
    : { url: `${origin}/v2/${repositoryPrefix}`, path: { override_path: true } };
}

/** With a slash at its end containerd would ask for `//v2/`. */
function mirrorHost(mirror: string): MirrorHost {
  return { url: mirror.replace(/\/+$/, ''), path: /\/v2\/./.test(mirror) ? { override_path: true } : {} };
}

function directRoot(endpoint: Endpoint, root: JsonMap): JsonMap {
  if (typeof root['server'] === 'string' && root['server'] !== '')
    return { server: root['server'], ...withoutKeys(root, ['server']) };
  const upstream = endpointHost(endpoint);
  // Without a `server` containerd passes over these two. A TLS setting makes it try https at an http:// server first.
  const unused = ['capabilities', 'override_path', ...(upstream.url.startsWith('http:') ? TLS_SETTINGS : [])];
  return { server: upstream.url, ...upstream.path, ...withoutKeys(root, ['server', ...unused]) };
}

/**
 * A table without keys would be written inside `[host]`, where containerd 2.x does not look for hosts: it is given
 * one that says what holds anyway.
 */
function othersThan(url: string, { hosts }: HostsFile): [string, JsonMap][] {
  return [...hosts]
    .filter(([host]) => !isSameHost(host, url))
    .map(([host, table]) => [
      host,
      Object.values(table).every(isTable) ? { override_path: false, ...table } : table,
    ]);
}

function withoutKeys(table: JsonMap, keys: readonly string[]): JsonMap {
  return Object.fromEntries(Object.entries(table).filter(([key]) => !keys.includes(key)));
}
