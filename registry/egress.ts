import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { Agent, buildConnector, type Dispatcher, Pool, ProxyAgent, Socks5ProxyAgent } from 'undici';
import { type Config, DIRECT_EGRESS, type EgressHop, type Upstream } from '../config/config.ts';
import type { AddressGuard } from './address-guard.ts';
import { unfit } from './upstream-failure.ts';

export interface Timeouts {
  /** Milliseconds for each step to a connection: TCP, a proxy's consent, TLS. */
  readonly connect: number;
  /** Milliseconds until an answer begins. containerd 2.3 gives a mirror 30 s. */
  readonly answer: number;
  /** Milliseconds without a byte of a body. */
  readonly idle: number;
}

const KEEP_ALIVE_MS = 60_000;

export const DEFAULT_TIMEOUTS: Timeouts = { connect: 5_000, answer: 15_000, idle: 20_000 };

export interface EgressOptions {
  readonly guard: AddressGuard;
  /** Directory of the PEM bundles that `ca:` names. */
  readonly caDirectory: string | undefined;
  readonly timeouts: Timeouts;
}

/** One way to an upstream, with its own pool of connections. */
export interface Way {
  readonly hop: EgressHop;
  readonly dispatcher: Dispatcher;
}

/**
 * Over HTTP/2 undici grants a body 256 KiB ahead, and all bodies of a connection 512 KiB together. At 200 ms to
 * the upstream that is 1.3 MB/s for a blob; TCP's own window grows with the link.
 */
const ALLOW_H2 = false;
/** As many upstreams and edits as are remembered; ways beyond are closed once their last request has ended. */
const MAX_WAYS = 500;

/** The connections to upstreams: kept open, by upstream and way out, until the configuration changes them. */
export class Egress {
  readonly #options: EgressOptions;
  readonly #ways = new LRUCache<string, readonly Way[]>({
    max: MAX_WAYS,
    dispose: (ways) => {
      // A request that still runs ends as it would have; only it can see the outcome of closing.
      for (const { dispatcher } of ways) void dispatcher.close();
    },
  });

  constructor(options: EgressOptions) {
    this.#options = options;
  }

  /**
   * The ways to this upstream, in the order in which to try them.
   *
   * @throws UpstreamFailure when its `ca` cannot be read.
   */
  async ways(upstream: Upstream, config: Config): Promise<readonly Way[]> {
    const hops = config.egress.get(upstream.egress) ?? config.egress.get(DIRECT_EGRESS) ?? [];
    // Read each time, since a mounted bundle is replaced while the program runs.
    const certificates = await this.#certificates(upstream);
    const { host, endpoint, mirror, trustedHosts, timeouts } = upstream;
    const key = JSON.stringify([host, endpoint, mirror, trustedHosts, timeouts, certificates, hops]);
    let ways = this.#ways.get(key);
    if (ways === undefined) {
      const tls = certificates.length === 0 ? {} : { secureContext: contextWith(certificates) };
      ways = hops.map((hop) => ({ hop, dispatcher: this.#dispatcher(upstream, hop, tls) }));
      this.#ways.set(key, ways);
    }
    return ways;
  }

  /** Cuts every connection. */
  async close(): Promise<void> {
    const ways = [...this.#ways.values()].flat();
    await Promise.all(ways.map((way) => way.dispatcher.destroy()));
  }

  #dispatcher(upstream: Upstream, hop: EgressHop, tls: { secureContext?: SecureContext }): Dispatcher {
    if (hop.kind === 'direct') return this.#direct(upstream, tls);
    const { connect, answer, idle } = this.#timeoutsOf(upstream);
    const proxy = hop.url.startsWith('socks5:')
      ? new Socks5ProxyAgent(hop.url, { connectTimeout: connect, requestTls: tls })
      : new ProxyAgent({
          uri: hop.url,
          connectTimeout: connect,
          requestTls: tls,
          proxyTls: { allowH2: ALLOW_H2 },
          allowH2: ALLOW_H2,
          // The answer to CONNECT is part of connecting, and would be waited for without end otherwise.
          clientFactory: (origin, options) => new Pool(origin, { ...options, headersTimeout: connect }),
        });
    // Neither hands its limits on to all the pools that it makes.
    return proxy.compose(
      (dispatch) => (options, handler) =>
        dispatch({ ...options, headersTimeout: answer, bodyTimeout: idle }, handler),
    );
  }

  #direct(upstream: Upstream, tls: { secureContext?: SecureContext }): Dispatcher {
    const { guard } = this.#options;
    const timeouts = this.#timeoutsOf(upstream);
    const connectors = new Map<string, buildConnector.connector>();
    return new Agent({
      // The next image comes soon after the last, and its first bytes sooner over a connection that is there.
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: timeouts.answer,
      bodyTimeout: timeouts.idle,
      allowH2: ALLOW_H2,
      connect: (options, callback) => {
        const port = options.port === '' ? (options.protocol === 'https:' ? '443' : '80') : options.port;
        let connector = connectors.get(port);
        if (connector === undefined) {
          const lookup = guard.lookup(upstream, port);
          connector = buildConnector({ ...tls, allowH2: ALLOW_H2, timeout: timeouts.connect, lookup });
          connectors.set(port, connector);
        }
        connector(options, callback);
      },
    });
  }

  #timeoutsOf({ timeouts }: Upstream): Timeouts {
    return { ...this.#options.timeouts, ...timeouts };
  }

  /** What `ca` adds to the certificates that every upstream is checked against. */
  async #certificates(upstream: Upstream): Promise<readonly string[]> {
    if (upstream.ca === undefined) return [];
    const { caDirectory } = this.#options;
    if (caDirectory === undefined)
      throw unfit(upstream, `its CA bundle ${upstream.ca} is in no directory; say with --ca-dir where it is`);
    const path = join(caDirectory, upstream.ca);
    try {
      return parseBundle(await readFile(path, 'utf8'));
    } catch (cause) {
      throw unfit(upstream, `cannot read its CA bundle ${path}`, cause);
    }
  }
}

/**
 * Made once for all connections of an upstream: with `ca` instead, Node reads all certificates again for each of
 * them, which takes 12 ms and holds 1.4 MB for as long as it is open.
 */
function contextWith(certificates: readonly string[]): SecureContext {
  // Given, it replaces the certificates that Node would trust.
  return createSecureContext({ ca: [...getCACertificates('default'), ...certificates] });
}

/** Node passes over what is no certificate, and would then refuse the upstream for no visible reason. */
function parseBundle(text: string): readonly string[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs);
  if (blocks === null) throw new Error('it holds no certificate in PEM');
  return blocks.map((pem) => new X509Certificate(pem).toString());
}
