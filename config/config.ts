import type { Endpoint } from './endpoint.ts';

/** What the one ConfigMap says, after everything that can be wrong with it was looked for. */
export interface Config {
  /** `false`: nodes go back to what they were; the registry serves on. */
  readonly enabled: boolean;
  /** By registry host as it stands in references. */
  readonly upstreams: ReadonlyMap<string, Upstream>;
  readonly egress: ReadonlyMap<string, readonly EgressHop[]>;
  readonly includeNamespaces: readonly string[];
  readonly excludeNamespaces: readonly string[];
  readonly fallback: Fallback;
  /** `HOST[:PORT]` under which a node that cannot be configured finds our registry; what the webhook was started with when it is not said. */
  readonly rewriteTo?: string;
  /** `KIND.GROUP` of owners that compare the images of their Pods with their own, and would not settle. */
  readonly skipOwners: readonly string[];
}

/** In `warm`: the platforms of the cluster's nodes, as these say them. */
export const NODES = 'nodes';

export interface Upstream {
  readonly host: string;
  /** Where the registry itself answers. Nodes that go directly go there as well. */
  readonly endpoint: Endpoint;
  /** Asked before the endpoint, by our registry or by the nodes, as `via` says. */
  readonly mirror?: Endpoint;
  readonly via: 'registry' | 'node';
  /** `false`: nodes never go to the upstream themselves. */
  readonly direct: boolean;
  /** A key of {@link Config.egress}. */
  readonly egress: string;
  /** First path components under which our registry serves this upstream, the host's own form among them. */
  readonly prefixes: readonly string[];
  readonly tags: TagTimes;
  /** A registry host of the mounted docker config; only with `access: everyone`. */
  readonly credentials?: string;
  /** File name of a PEM bundle, in the directory that `--ca-dir` names. */
  readonly ca?: string;
  readonly timeouts: UpstreamTimeouts;
  /** Platforms (`linux/arm64`) that are fetched as well when an index was pulled; {@link NODES}: those of the cluster's nodes. */
  readonly warm: readonly string[];
  /** `HOST[:PORT]` of token realms and redirect targets that are trusted although they are elsewhere or internal. */
  readonly trustedHosts: readonly string[];
}

/** How long an upstream is waited for, in milliseconds, where it is not the default. */
export interface UpstreamTimeouts {
  /** For a connection, TLS and all. */
  readonly connect?: number;
  /** Until an answer begins. */
  readonly answer?: number;
  /** Without a byte of a body. */
  readonly idle?: number;
}

/** How old an answer to a tag may be, in milliseconds. */
export interface TagTimes {
  /** A tag is not looked up again within this time. */
  readonly ttl: number;
  /** For so long after that, the known answer goes out at once while it is looked up (RFC 5861). */
  readonly staleWhileRevalidate: number;
  /** After that, the look-up is waited for this long before the known answer goes out all the same. */
  readonly budget: number;
}

export type Fallback = 'auto' | 'always' | 'never';

/** One way out of the cluster: a proxy's URL (`http:`, `https:`, `socks5:`), or none. */
export type EgressHop = { readonly kind: 'direct' } | { readonly kind: 'proxy'; readonly url: string };

export const DIRECT_EGRESS = 'direct';

/** Namespaces whose Pods the webhook leaves alone unless the configuration says otherwise. */
export const DEFAULT_EXCLUDED_NAMESPACES: readonly string[] = [
  'kube-system',
  'kube-public',
  'kube-node-lease',
];

/** Operators that are known to compare images, where the configuration names none. */
export const DEFAULT_SKIPPED_OWNERS: readonly string[] = [
  'Cluster.postgresql.cnpg.io',
  'AerospikeCluster.asdb.aerospike.com',
];
