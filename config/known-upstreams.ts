/** What is known of public registries, so that naming them is enough. */
export interface KnownUpstream {
  readonly endpoint: string;
  /** Path prefixes besides the host's own name; those of the chart that weir replaces are among them. */
  readonly prefixes: readonly string[];
}

export const KNOWN_UPSTREAMS: ReadonlyMap<string, KnownUpstream> = new Map([
  // Docker Hub's API does not answer under the name that references carry.
  ['docker.io', { endpoint: 'https://registry-1.docker.io', prefixes: ['dockerhub'] }],
  ['ghcr.io', { endpoint: 'https://ghcr.io', prefixes: ['ghcr'] }],
  ['quay.io', { endpoint: 'https://quay.io', prefixes: ['quay', 'quayio'] }],
  ['registry.k8s.io', { endpoint: 'https://registry.k8s.io', prefixes: ['k8s'] }],
  ['gcr.io', { endpoint: 'https://gcr.io', prefixes: [] }],
  ['k8s.gcr.io', { endpoint: 'https://k8s.gcr.io', prefixes: [] }],
  ['mcr.microsoft.com', { endpoint: 'https://mcr.microsoft.com', prefixes: [] }],
  ['docker.cloudsmith.io', { endpoint: 'https://docker.cloudsmith.io', prefixes: [] }],
  ['public.ecr.aws', { endpoint: 'https://public.ecr.aws', prefixes: [] }],
  ['nvcr.io', { endpoint: 'https://nvcr.io', prefixes: [] }],
]);

/** The host that a well-known prefix stands for, whether or not that host is configured. */
export const KNOWN_PREFIXES: ReadonlyMap<string, string> = new Map(
  [...KNOWN_UPSTREAMS].flatMap(([host, { prefixes }]) =>
    prefixes.map((prefix): [string, string] => [prefix, host]),
  ),
);
