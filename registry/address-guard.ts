import { lookup as dnsLookup, type LookupAddress, type LookupAllOptions } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import type { Upstream } from '../config/config.ts';
import { isForbiddenTarget } from '../config/forbidden-targets.ts';
import { sourcesOf } from '../config/routing.ts';

/** Every address of a name, as `dns.lookup` gives them. */
export type Resolve = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** This machine, the local link, and the clouds' services for their own machines. */
const INTERNAL_IPV4: readonly (readonly [network: string, bits: number])[] = [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['100.100.100.200', 32], // Alibaba Cloud's metadata
  ['168.63.129.16', 32], // Azure's platform
];
const INTERNAL_IPV6: readonly (readonly [network: string, bits: number])[] = [
  ['::', 128],
  ['::1', 128],
  ['fe80::', 10],
  ['fd00:ec2::', 32], // AWS
  ['fd20:ce::254', 128], // Google Cloud
];
/** Names that stand for this machine everywhere (RFC 6761, section 6.3), or in the hosts file of distributions. */
const LOCAL_NAME = /^(?:(?:.+\.)?localhost|localhost\.localdomain|ip6-localhost|ip6-loopback)$/;

/**
 * Keeps the registry from being sent where it has no business: an upstream's name, redirect or token realm
 * that leads to this machine, the local link, a metadata service or the API server is refused, unless the
 * configuration names that very address for that upstream. Names are judged by what they resolve to at the
 * moment of the connection, so a name that changes its mind gains nothing. Behind a proxy it is the proxy that
 * resolves them: there they are judged by what they resolve to here, as far as they do.
 */
export class AddressGuard {
  readonly #internal = new BlockList();
  readonly #internalNames = new Set<string>();
  readonly #resolve: Resolve;

  /** `apiServers`: addresses or names of the cluster's API server, where there is one. */
  constructor(apiServers: readonly string[], resolve: Resolve = dnsLookup) {
    this.#resolve = resolve;
    for (const [network, bits] of INTERNAL_IPV4) this.#forbidIpv4(network, bits);
    for (const [network, bits] of INTERNAL_IPV6) this.#internal.addSubnet(network, bits, 'ipv6');
    for (const server of apiServers) this.#forbidServer(withoutBrackets(server));
  }

  /**
   * Judges a URL before anything is sent to it.
   *
   * @throws ForbiddenTarget when its host is a forbidden name, or an internal address that is not named.
   */
  check(url: URL, upstream: Upstream): void {
    if (isNamed(url.hostname, portOf(url), upstream)) return;
    const host = withoutDot(url.hostname);
    const address = withoutBrackets(host);
    const internal =
      isIP(address) === 0
        ? LOCAL_NAME.test(host) || this.#internalNames.has(host)
        : this.#isInternal(address);
    if (internal || isForbiddenTarget(host)) {
      const target = `${url.hostname}:${portOf(url)}`;
      throw new ForbiddenTarget(url.host, [target]);
    }
  }

  /** A resolver for connections to this port that leaves out internal addresses. */
  lookup(upstream: Upstream, port: string): LookupFunction {
    return (hostname, options, callback) => {
      this.#resolve(hostname, { ...options, all: true }, (error, addresses) => {
        if (error !== null) return callback(error, []);
        const allowed = addresses.filter(({ address }) =>
          this.#mayConnect(hostname, address, port, upstream),
        );
        const [first] = allowed;
        if (first === undefined) {
          const targets = addresses.map(({ address }) => `${literal(address)}:${port}`);
          return callback(new ForbiddenTarget(hostname, targets), []);
        }
        if (options.all === true) callback(null, allowed);
        else callback(null, first.address, first.family);
      });
    };
  }

  /**
   * Judges a URL whose name a proxy will resolve, by what it resolves to here. A name that does not resolve here
   * passes: behind a proxy that is no sign of anything.
   *
   * @throws ForbiddenTarget when every address of it is internal and not named.
   */
  async checkResolved(url: URL, upstream: Upstream): Promise<void> {
    if (isIP(withoutBrackets(url.hostname)) !== 0 || isNamed(url.hostname, portOf(url), upstream)) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.lookup(upstream, portOf(url))(url.hostname, { all: true }, (error) => {
      if (error instanceof ForbiddenTarget) reject(error);
      else resolve();
    });
    await promise;
  }

  #mayConnect(hostname: string, address: string, port: string, upstream: Upstream): boolean {
    if (!this.#isInternal(address)) return true;
    return (
      isNamed(literal(address), port, upstream) ||
      (LOCAL_NAME.test(withoutDot(hostname)) && isNamed(hostname, port, upstream))
    );
  }

  #isInternal(address: string): boolean {
    return this.#internal.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }

  /** `BlockList` itself knows the mapped form, `::ffff:127.0.0.1`. */
  #forbidIpv4(network: string, bits: number): void {
    this.#internal.addSubnet(network, bits, 'ipv4');
    // By a translator (RFC 6052), and the old compatible form (RFC 4291, section 2.5.5.1).
    for (const prefix of ['64:ff9b::', '::'])
      this.#internal.addSubnet(`${prefix}${network}`, 96 + bits, 'ipv6');
  }

  #forbidServer(server: string): void {
    const family = isIP(server);
    if (family === 4) this.#forbidIpv4(server, 32);
    else if (family === 6) this.#internal.addAddress(server, 'ipv6');
    else this.#internalNames.add(withoutDot(server.toLowerCase()));
  }
}

/** The configuration, or an upstream's answer, leads where the registry does not go. */
export class ForbiddenTarget extends Error {
  override readonly name = 'ForbiddenTarget';

  /** `remedies`: what `trustedHosts` would have to hold. */
  constructor(target: string, remedies: readonly string[]) {
    const addresses = remedies.join(', ');
    const resolved = remedies.some((remedy) => remedy.startsWith(target))
      ? target
      : `${target} (${addresses})`;
    super(
      `it leads to ${resolved}, an internal address; if that is meant, add ${addresses} to its "trustedHosts"`,
    );
  }
}

/** Whether the configuration trusts this URL's host and port for that upstream, by its `trustedHosts`. */
export function isTrusted(url: URL, upstream: Upstream): boolean {
  return upstream.trustedHosts.some((name) => isSameHost(name, url.hostname, portOf(url)));
}

/** Whether the configuration names this very host and port, as a source or in `trustedHosts`. */
function isNamed(hostname: string, port: string, upstream: Upstream): boolean {
  const isSource = sourcesOf(upstream).some(({ origin }) => {
    const source = new URL(origin);
    return source.hostname === hostname && portOf(source) === port;
  });
  return isSource || upstream.trustedHosts.some((name) => isSameHost(name, hostname, port));
}

/** A name without a port stands for the ports of http and https. */
function isSameHost(name: string, hostname: string, port: string): boolean {
  const given = /:(\d+)$/.exec(name)?.[1];
  const host = given === undefined ? name : name.slice(0, -given.length - 1);
  // As URL writes it: `[0:0::1]` is `[::1]`.
  if (!URL.canParse(`http://${host}`) || new URL(`http://${host}`).hostname !== hostname) return false;
  return given === undefined ? port === '80' || port === '443' : given === port;
}

function portOf(url: URL): string {
  return url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
}

function literal(address: string): string {
  return isIP(address) === 6 ? `[${address}]` : address;
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[|\]$/g, '');
}

function withoutDot(host: string): string {
  return host.replace(/\.$/, '');
}
