import { lookup as dnsLookup, type LookupAddress } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import type { Upstream } from '../config/config.ts';
import { isForbiddenTarget } from '../config/forbidden-targets.ts';
import { sourcesOf } from '../config/routing.ts';

/**
 * Keeps the registry from being sent where it has no business: an upstream's name, redirect or token realm
 * that leads to this machine, the local link, a metadata service or the API server is refused, unless the
 * configuration names that very address for that upstream. Names are judged by what they resolve to at the
 * moment of the connection, so a name that changes its mind gains nothing.
 */
export class AddressGuard {
  readonly #internal = new BlockList();

  /** `apiServers`: the addresses of the cluster's API server, where there is one. */
  constructor(apiServers: readonly string[]) {
    const list = this.#internal;
    list.addSubnet('0.0.0.0', 8, 'ipv4');
    list.addSubnet('127.0.0.0', 8, 'ipv4');
    list.addSubnet('169.254.0.0', 16, 'ipv4');
    list.addAddress('100.100.100.200', 'ipv4');
    list.addAddress('168.63.129.16', 'ipv4');
    list.addAddress('::', 'ipv6');
    list.addAddress('::1', 'ipv6');
    list.addSubnet('fe80::', 10, 'ipv6');
    list.addSubnet('fd00:ec2::', 32, 'ipv6');
    // IPv4 written as IPv6: by a translator (RFC 6052) or as the old compatible form.
    list.addSubnet('64:ff9b::7f00:0', 104, 'ipv6');
    list.addSubnet('64:ff9b::a9fe:0', 112, 'ipv6');
    for (const address of apiServers) list.addAddress(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }

  /**
   * Judges a URL before anything is sent to it.
   *
   * @throws ForbiddenTarget when its host is a forbidden name, or an internal address that is not named.
   */
  check(url: URL, upstream: Upstream): void {
    const bare = url.hostname.replace(/^\[|\]$/g, '');
    const named = namesOf(upstream).has(url.host) || namesOf(upstream).has(`${url.hostname}:${portOf(url)}`);
    if (named) return;
    const internal = isIP(bare) === 0 ? /(?:^|\.)localhost\.?$/.test(bare) : this.#isInternal(bare);
    if (internal || isForbiddenTarget(url.hostname.replace(/\.$/, '')))
      throw new ForbiddenTarget(url.host, upstream);
  }

  /** A resolver for connections to this port that leaves out internal addresses. */
  lookup(upstream: Upstream, port: string): LookupFunction {
    return (hostname, options, callback) => {
      dnsLookup(hostname, { ...options, all: true }, (error, addresses) => {
        if (error !== null) return callback(error, []);
        const allowed = addresses.filter(({ address }) =>
          this.#mayConnect(hostname, address, port, upstream),
        );
        const [first] = allowed;
        if (first === undefined)
          return callback(new ForbiddenTarget(resolved(hostname, addresses), upstream), []);
        if (options.all === true) callback(null, allowed);
        else callback(null, first.address, first.family);
      });
    };
  }

  #mayConnect(hostname: string, address: string, port: string, upstream: Upstream): boolean {
    if (!this.#isInternal(address)) return true;
    const names = namesOf(upstream);
    const literal = isIP(address) === 6 ? `[${address}]` : address;
    return names.has(`${literal}:${port}`) || (hostname === 'localhost' && names.has(`localhost:${port}`));
  }

  #isInternal(address: string): boolean {
    return this.#internal.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }
}

/** The configuration, or an upstream's answer, leads where the registry does not go. */
export class ForbiddenTarget extends Error {
  override readonly name = 'ForbiddenTarget';

  constructor(target: string, upstream: Upstream) {
    super(
      `${upstream.host} leads to ${target}, an internal address; if that is meant, add the address and port to its "trustedHosts"`,
    );
  }
}

/** `HOST:PORT` of everything that the configuration names for this upstream, with the scheme's port filled in. */
function namesOf(upstream: Upstream): ReadonlySet<string> {
  const names = new Set(upstream.trustedHosts);
  for (const { origin } of sourcesOf(upstream)) {
    const url = new URL(origin);
    names.add(`${url.hostname}:${portOf(url)}`);
  }
  return names;
}

function portOf(url: URL): string {
  return url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
}

function resolved(hostname: string, addresses: readonly LookupAddress[]): string {
  return `${hostname} (${addresses.map(({ address }) => address).join(', ')})`;
}
