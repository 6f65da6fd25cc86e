// Who has which address and name in the test cluster. All of it lives in network namespaces of its own: the
// machine's network is not touched, and clusters beside each other may have the same addresses.

/** Prefix lengths go with the address where a whole network is meant. */
export const NODE_NETWORK_BITS = 24;
export const CONTROL_PLANE = '10.99.0.1';
/** The way out of the cluster, where its upstreams are. */
export const GATEWAY = '10.99.0.254';
export const SERVICE_RANGE = '10.96.0.0/16';
/** The Service `kubernetes`: the first address of the range. */
export const API_SERVICE = '10.96.0.1';
export const POD_RANGE = '10.244.0.0/16';
export const API_PORT = 6443;
export const S3_PORT = 9000;
/** The resolver that the nodes use: it knows the upstreams and nothing of the cluster. */
export const PUBLIC_DNS = '198.51.100.53';

/** The numbers of so many nodes. */
export function numbersUpTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

export function nodeName(number: number): string {
  return `node${number}`;
}

export function nodeAddress(number: number): string {
  return `10.99.0.${10 + number}`;
}

/** The range that the node gives its Pods addresses from. */
export function podRange(number: number): string {
  return `10.244.${number}.0/24`;
}

/** A registry that the cluster believes to be a public one, or a company's. */
export interface RegistryHost {
  /** As images name it. */
  readonly name: string;
  /** The names that lead to it, of which the first is where clients go; all have one address. */
  readonly hosts: readonly [string, ...string[]];
  readonly address: string;
  /**
   * `open`: nothing is asked. `anonymous`: a Bearer token that anybody gets. `token`: one for who has the
   * password. `basic`: the password with each request.
   */
  readonly access: 'open' | 'anonymous' | 'token' | 'basic';
  /** Where its tokens are. */
  readonly realm: string;
}

export const REGISTRIES: readonly RegistryHost[] = [
  {
    name: 'docker.io',
    hosts: ['registry-1.docker.io', 'auth.docker.io', 'index.docker.io', 'docker.io'],
    address: '198.51.100.10',
    access: 'anonymous',
    realm: 'https://auth.docker.io/token',
  },
  {
    name: 'ghcr.io',
    hosts: ['ghcr.io'],
    address: '198.51.100.11',
    access: 'anonymous',
    realm: 'https://ghcr.io/token',
  },
  {
    name: 'quay.io',
    hosts: ['quay.io'],
    address: '198.51.100.12',
    access: 'anonymous',
    realm: 'https://quay.io/v2/auth',
  },
  {
    name: 'registry.k8s.io',
    hosts: ['registry.k8s.io'],
    address: '198.51.100.13',
    access: 'open',
    realm: '',
  },
  {
    name: 'registry.corp.example',
    hosts: ['registry.corp.example'],
    address: '198.51.100.20',
    access: 'token',
    realm: 'https://registry.corp.example/token',
  },
  {
    name: 'basic.corp.example',
    hosts: ['basic.corp.example'],
    address: '198.51.100.21',
    access: 'basic',
    realm: '',
  },
];

/** Whom the private registries let in. */
export const REGISTRY_USER = 'puller';
export const REGISTRY_PASSWORD = 'let-me-in';

/** The registry that an image's name means. */
export function registryNamed(name: string): RegistryHost {
  const found = REGISTRIES.find((registry) => registry.name === name);
  if (found === undefined)
    throw new Error(
      `no upstream is called ${name}; there are ${REGISTRIES.map((one) => one.name).join(', ')}`,
    );
  return found;
}
