import type { Config, Upstream } from '../../config/config.ts';
import { type Endpoint, parseEndpoint } from '../../config/endpoint.ts';
import { KNOWN_UPSTREAMS } from '../../config/known-upstreams.ts';
import { hostForPrefix, hostPrefix } from '../../config/routing.ts';
import { CANARY_HOST } from '../../oci/canary.ts';

/** A location of registries.conf: what stands for the registry's host in an image's name. */
export interface Location {
  readonly location: string;
  /** Plain HTTP. containers/image takes it for "HTTPS without verification" as well, and tries that first. */
  readonly insecure: boolean;
}

/**
 * Where our registry has the images of an upstream: containers/image asks by path and sends no `ns`.
 *
 * @param mirror the URL of our registry as the nodes reach it.
 * @throws Error that says why it has them nowhere that such a client could ask.
 */
export function mirrorLocation(mirror: string, upstream: Upstream, config: Config): Location {
  const { pathname, origin } = new URL(mirror);
  const path = /^\/(?:v2\/?)?(.*?)\/*$/.exec(pathname)?.[1] ?? '';
  if (path !== '' && !pathname.startsWith('/v2/'))
    throw new Error(`${mirror} has its API below a path, and CRI-O asks at the root of a host only`);
  const prefix = upstream.host === CANARY_HOST ? CANARY_HOST : prefixOf(upstream, config);
  return endpointLocation({ origin, repositoryPrefix: path === '' ? prefix : `${path}/${prefix}` });
}

/** Where a registry, or a mirror of the operator's, has them. */
export function endpointLocation({ origin, repositoryPrefix }: Endpoint): Location {
  const { protocol, hostname, port } = new URL(origin);
  const insecure = protocol === 'http:';
  // Without a port, plain HTTP would be preceded by HTTPS at 443; and a host of one word needs one to be a host.
  const isWord = /^[^.:[]+$/.test(hostname) && hostname !== 'localhost';
  const known = port || (insecure ? '80' : isWord ? '443' : '');
  const host = known === '' ? hostname : `${hostname}:${known}`;
  return { location: repositoryPrefix === '' ? host : `${host}/${repositoryPrefix}`, insecure };
}

/**
 * Where the upstream itself is. Docker Hub and others go by their own name as long as nobody says otherwise, since
 * credentials are kept under it.
 */
export function upstreamLocation({ host, endpoint }: Upstream): Location {
  const usual = parseEndpoint(KNOWN_UPSTREAMS.get(host)?.endpoint ?? `https://${host}`);
  const isUsual = endpoint.origin === usual.origin && endpoint.repositoryPrefix === usual.repositoryPrefix;
  return isUsual ? { location: host, insecure: false } : endpointLocation(endpoint);
}

/** No two registries of a configuration share one. */
function prefixOf({ host, prefixes }: Upstream, config: Config): string {
  const own = hostPrefix(host);
  return [own, ...prefixes].find((one) => hostForPrefix(config, one) === host) ?? own;
}
