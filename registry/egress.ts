import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { Agent, buildConnector, type Dispatcher, ProxyAgent, Socks5ProxyAgent } from 'undici';
import { type Config, DIRECT_EGRESS, type EgressHop, type Upstream } from '../config/config.ts';
import type { AddressGuard } from './address-guard.ts';

export interface Timeouts {
  /** Milliseconds for TCP and TLS. */
  readonly connect: number;
  /** Milliseconds until an answer begins. containerd 2.3 gives a mirror 30 s. */
  readonly headers: number;
  /** Milliseconds without a byte of a body. */
  readonly idle: number;
}

export const DEFAULT_TIMEOUTS: Timeouts = { connect: 5_000, headers: 15_000, idle: 30_000 };

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

/** The connections to upstreams: kept open, by upstream and way out, until the configuration changes them. */
export class Egress {
  readonly #options: EgressOptions;
  readonly #ways = new Map<string, Promise<readonly Way[]>>();

  constructor(options: EgressOptions) {
    this.#options = options;
  }

  /**
   * The ways to this upstream, in the order in which to try them.
   *
   * @throws Error when its `ca` cannot be read.
   */
  async ways(upstream: Upstream, config: Config): Promise<readonly Way[]> {
    const hops = config.egress.get(upstream.egress) ?? config.egress.get(DIRECT_EGRESS) ?? [];
    const key = JSON.stringify([
      upstream.host,
      upstream.endpoint,
      upstream.mirror,
      upstream.trustedHosts,
      upstream.ca,
      hops,
    ]);
    let ways = this.#ways.get(key);
    if (ways === undefined) {
      ways = this.#open(upstream, hops);
      this.#ways.set(key, ways);
      // Read again at the next request, when the file may be there.
      ways.catch(() => this.#ways.delete(key));
    }
    return await ways;
  }

  /** Cuts every connection. */
  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.#ways.values());
    const ways = opened.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
    await Promise.all(ways.map((way) => way.dispatcher.destroy()));
  }

  async #open(upstream: Upstream, hops: readonly EgressHop[]): Promise<readonly Way[]> {
    const tls = await this.#trust(upstream);
    return hops.map((hop) => ({ hop, dispatcher: this.#dispatcher(upstream, hop, tls) }));
  }

  #dispatcher(upstream: Upstream, hop: EgressHop, tls: { ca?: string[] }): Dispatcher {
    const { timeouts, guard } = this.#options;
    const limits = {
      headersTimeout: timeouts.headers,
      bodyTimeout: timeouts.idle,
      connectTimeout: timeouts.connect,
    };
    if (hop.kind === 'proxy') {
      if (hop.url.startsWith('socks5:')) return new Socks5ProxyAgent(hop.url, { ...limits, requestTls: tls });
      return new ProxyAgent({ ...limits, uri: hop.url, requestTls: tls });
    }
    const connectors = new Map<string, buildConnector.connector>();
    return new Agent({
      ...limits,
      connect: (options, callback) => {
        let connector = connectors.get(options.port);
        if (connector === undefined) {
          const port = options.port === '' ? (options.protocol === 'https:' ? '443' : '80') : options.port;
          connector = buildConnector({
            ...tls,
            timeout: timeouts.connect,
            lookup: guard.lookup(upstream, port),
          });
          connectors.set(options.port, connector);
        }
        connector(options, callback);
      },
    });
  }

  async #trust(upstream: Upstream): Promise<{ ca?: string[] }> {
    if (upstream.ca === undefined) return {};
    const { caDirectory } = this.#options;
    if (caDirectory === undefined)
      throw new Error(`${upstream.host} names the CA bundle ${upstream.ca}; say with --ca-dir where it is`);
    const path = join(caDirectory, upstream.ca);
    try {
      return { ca: [...getCACertificates('default'), await readFile(path, 'utf8')] };
    } catch (cause) {
      throw new Error(`cannot read the CA bundle of ${upstream.host}, ${path}`, { cause });
    }
  }
}
