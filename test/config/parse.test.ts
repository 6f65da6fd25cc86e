import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';
import { ConfigError, type Problem } from '../../config/problem.ts';

/** `line key: message` of each problem, in the order of the file. */
function problemsOf(text: string): string[] {
  try {
    parseConfig(text);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems)
      assert.match(problem.remedy, /\w.*\.$/s, `a remedy for ${problem.key}`);
    return error.problems.filter(({ severity }) => severity === 'error').map(asLine);
  }
}

/** So many lines that a person wrote none of them. */
function lines(line: (index: number) => string): string {
  return Array.from({ length: 5_000 }, (_, index) => line(index)).join('\n');
}

const asLine = ({ line, key, message }: Problem): string => `${line} ${key}: ${message}`;

suite('the configuration', () => {
  test("weir's own form is read with every key", () => {
    const { config, warnings } = parseConfig(`
enabled: true
defaults: { direct: true, egress: direct, tags: { ttl: 90s } }
upstreams:
  docker.io: {}
  ghcr.io: { egress: clash }
  quay.io: { tags: { ttl: 10m } }
  harbor.corp:8443:
    endpoint: https://harbor.corp:8443
    prefix: corp
    credentials: corp
    access: everyone
    ca: corp-ca.pem
    timeouts: { connect: 2s, idle: 1m }
    warm: [linux/arm64]
    trustedHosts: [auth.corp]
  mcr.microsoft.com: { mirror: https://mcr.dockerproxy.com }
  gcr.io: { mirror: https://gcr.example/v2/gcr, via: node }
  nvcr.io: { direct: false }
egress:
  clash: { proxy: [http://127.0.0.1:7890, "socks5://10.0.0.1:1080", direct] }
fallback: never
`);
    assert.deepEqual(warnings, []);
    assert.deepEqual(config.upstreams.get('docker.io'), {
      host: 'docker.io',
      endpoint: { origin: 'https://registry-1.docker.io', repositoryPrefix: '' },
      via: 'registry',
      direct: true,
      egress: 'direct',
      prefixes: ['dockerhub', 'docker.io'],
      tags: { ttl: 90_000, staleWhileRevalidate: 60_000, budget: 2_000 },
      timeouts: {},
      warm: [],
      trustedHosts: [],
    });
    assert.deepEqual(config.upstreams.get('harbor.corp:8443'), {
      host: 'harbor.corp:8443',
      endpoint: { origin: 'https://harbor.corp:8443', repositoryPrefix: '' },
      via: 'registry',
      direct: true,
      egress: 'direct',
      prefixes: ['corp', 'harbor.corp-8443'],
      tags: { ttl: 90_000, staleWhileRevalidate: 60_000, budget: 2_000 },
      timeouts: { connect: 2_000, idle: 60_000 },
      warm: ['linux/arm64'],
      credentials: 'corp',
      ca: 'corp-ca.pem',
      trustedHosts: ['auth.corp'],
    });
    assert.equal(config.upstreams.get('quay.io')?.tags.ttl, 600_000);
    assert.deepEqual(config.upstreams.get('gcr.io')?.mirror, {
      origin: 'https://gcr.example',
      repositoryPrefix: 'gcr',
    });
    assert.equal(config.upstreams.get('nvcr.io')?.direct, false);
    assert.deepEqual(config.egress.get('clash'), [
      { kind: 'proxy', url: 'http://127.0.0.1:7890/' },
      { kind: 'proxy', url: 'socks5://10.0.0.1:1080' },
      { kind: 'direct' },
    ]);
    assert.equal(config.fallback, 'never');
    assert.deepEqual(config.includeNamespaces, ['*']);
    assert.deepEqual(config.excludeNamespaces, ['kube-system', 'kube-public', 'kube-node-lease']);
  });

  test('the form of ketches/registry-proxy is read as it is, with its bare asterisk', () => {
    const { config } = parseConfig(`
enabled: true
proxies:
  docker.io: docker.m.daocloud.io
  registry.k8s.io: k8s.m.daocloud.io
  ghcr.io: https://mirror.example/ghcr
includeNamespaces:
- *
excludeNamespaces:
- kube-system
- *-private   # a glob of one's own
`);
    assert.deepEqual(config.upstreams.get('docker.io')?.mirror, {
      origin: 'https://docker.m.daocloud.io',
      repositoryPrefix: '',
    });
    assert.deepEqual(config.upstreams.get('docker.io')?.endpoint.origin, 'https://registry-1.docker.io');
    assert.deepEqual(config.upstreams.get('ghcr.io')?.mirror, {
      origin: 'https://mirror.example',
      repositoryPrefix: 'ghcr',
    });
    assert.deepEqual(config.includeNamespaces, ['*']);
    assert.deepEqual(config.excludeNamespaces, ['kube-system', '*-private']);
  });

  test('an alias stays an alias', () => {
    const { config } = parseConfig(
      'includeNamespaces:\n- &team team-a\nexcludeNamespaces:\n- *team\nupstreams: { ghcr.io: {} }\n',
    );
    assert.deepEqual(config.excludeNamespaces, ['team-a']);
  });

  test('no upstream at all is doubtful, an empty file is refused: somebody may be writing it', () => {
    const { config, warnings } = parseConfig('enabled: true');
    assert.equal(config.upstreams.size, 0);
    assert.match(warnings[0]?.message ?? '', /no upstream/);
    for (const text of ['', '\n\n', '# nothing', 'null']) assert.match(problemsOf(text)[0] ?? '', /is empty/);
  });

  test('a file that is wrong throughout is refused soon', { timeout: 20_000 }, () => {
    assert.equal(problemsOf(lines((index) => `key${index}: 1`)).length, 101);
    assert.match(
      problemsOf(`upstreams:\n${lines((index) => `  r${index}.io: {}`)}`)[0] ?? '',
      /5000 upstreams are named/,
    );
    assert.equal(problemsOf(`upstreams: { a.io: {} }${'\n'.repeat(200_000)}`).length, 0);
    assert.match(
      problemsOf(`upstreams: { a.io: { mirror: "https://a/${'/'.repeat(100_000)}b" } }`)[0] ?? '',
      /longer than/,
    );
  });

  test('every problem is reported at once, in the order of the file, with line and key', () => {
    assert.deepEqual(
      problemsOf(`enabled: yes
defaults: { egress: nope, tags: { ttl: 60 } }
upstreams:
  docker.io: {}
  ghcr.io: { egress: clash, prefx: a }
  quay.io: { tags: { ttl: 10x } }
  harbor.corp:
    prefix: ghcr
    credentials: corp
  gcr.io: { mirror: https://gcr.io }
  nvcr.io: { via: node }
  "bad host": {}
  evil.io: { endpoint: "https://kubernetes.default.svc" }
  meta.io: { mirror: "http://169.254.169.254/latest" }
egress:
  clash: { proxy: ftp://x }
proxies:
  index.docker.io: docker.m.daocloud.io
`),
      [
        '1 enabled: true or false is wanted here',
        '2 defaults.egress: there is no egress "nope"',
        '2 defaults.tags.ttl: text is wanted here',
        '5 upstreams.ghcr.io.egress: there is no egress "clash"',
        '5 upstreams.ghcr.io.prefx: the key is not known',
        '6 upstreams.quay.io.tags.ttl: "10x" is no duration',
        '8 upstreams.harbor.corp.prefix: "ghcr" already stands for ghcr.io',
        '9 upstreams.harbor.corp.credentials: whoever reaches the registry can then pull what these credentials can',
        '10 upstreams.gcr.io.mirror: the mirror is gcr.io itself',
        '11 upstreams.nvcr.io.via: "via: node" needs a mirror to send the nodes to',
        '12 upstreams.bad host: "bad host" is no registry host',
        `13 upstreams.evil.io.endpoint: kubernetes.default.svc is the cluster's API server or a cloud's metadata service`,
        `14 upstreams.meta.io.mirror: 169.254.169.254 is the cluster's API server or a cloud's metadata service`,
        '16 egress.clash.proxy: it is no proxy',
        '18 proxies.index.docker.io: docker.io is configured a second time, after upstreams.docker.io',
      ],
    );
  });

  test("the host of weir's own canary is no upstream", () => {
    assert.match(problemsOf('upstreams: { canary.weir.internal: {} }')[0] ?? '', /is weir's own/);
  });

  test('a key that is there twice hides no other problem', () => {
    assert.deepEqual(
      problemsOf('enabled: true\nenabled: maybe\nupstreams: { a.io: { mirrr: x } }').map((line) =>
        line.slice(0, 12),
      ),
      ['1 enabled: t', '2 : Map keys', '3 upstreams.'],
    );
  });

  test('an upstream that is itself a metadata service or the API server is refused', () => {
    for (const host of ['169.254.169.254', 'kubernetes.default', 'kubernetes.default.svc:443'])
      assert.match(
        problemsOf(`upstreams: { "${host}": {} }`)[0] ?? '',
        /API server or a cloud's metadata service/,
        host,
      );
  });

  const refused: Readonly<Record<string, [string, RegExp]>> = {
    'a syntax error': ['upstreams:\n  docker.io: {\n', /^[23] : /],
    'a key that is there twice': ['enabled: true\nenabled: false\n', /^2 : .*unique/],
    'a list for the whole': ['- a\n', /^1 : a set of keys is wanted here/],
    'an unknown alias': ['upstreams: *none\n', /alias/i],
    'more than is read': [`# ${'x'.repeat(1024 * 1024)}\n`, /larger than 256 KiB/],
    'a mirror with a password': [
      'upstreams: { ghcr.io: { mirror: "https://user:secret@mirror" } }',
      /carries a user name or password/,
    ],
    'a mirror that is no URL': ['upstreams: { ghcr.io: { mirror: "https://a b" } }', /is no URL/],
    'a line break in a mirror': ['upstreams: { ghcr.io: { mirror: "https://a\\n[host]" } }', /is no URL/],
    'a quote in a mirror': [
      'upstreams: { ghcr.io: { mirror: "https://a/\\"]\\n" } }',
      /is no URL|is no path/,
    ],
    'a CA bundle elsewhere': ['upstreams: { ghcr.io: { ca: ../../etc/passwd } }', /is no file name/],
    'a namespace that ends in a hyphen': ['excludeNamespaces: [team-]', /"team-" is no namespace/],
    'a namespace that begins with one': ['excludeNamespaces: ["-x"]', /"-x" is no namespace/],
    'a pattern that fits no namespace': ['includeNamespaces: ["*-"]', /"\*-" is no namespace/],
    'a namespace of capitals': ['includeNamespaces: [Team]', /"Team" is no namespace/],
    'a prefix with a slash': ['upstreams: { ghcr.io: { prefix: a/b } }', /is no path prefix/],
  };
  for (const [what, [text, message]] of Object.entries(refused))
    test(`${what} is refused`, () => {
      const [first = ''] = problemsOf(text);
      assert.match(first, message);
      assert.doesNotMatch(first, /secret/, 'nothing secret is repeated');
    });

  test('a host that would leave the directory of mirrors is refused', () => {
    for (const host of ['..', '../x', 'a/../../b', '/etc', 'x\\u0000y'])
      assert.match(problemsOf(`upstreams: { "${host}": {} }`)[0] ?? '', /is no registry host/, host);
  });

  test('two upstreams that would be under one path are refused, and both are named', () => {
    const text = 'upstreams:\n  harbor.corp:8443: {}\nproxies:\n  harbor.corp-8443: m.example\n';
    const [problem = '', ...others] = problemsOf(text);
    assert.match(
      problem,
      /^4 proxies\.harbor\.corp-8443: harbor\.corp-8443 and harbor\.corp:8443 would both be under/,
    );
    assert.deepEqual(others, []);
    assert.deepEqual(problemsOf('upstreams: { "harbor.corp:8443": {}, harbor.corp: {} }'), []);
  });

  test('a metadata address is accepted once it is named as trusted', () => {
    assert.deepEqual(
      problemsOf(
        'upstreams: { a.io: { endpoint: "http://169.254.169.254", trustedHosts: ["169.254.169.254"] } }',
      ),
      [],
    );
  });

  test('namespaces are warned about, because nodes know none', () => {
    const { warnings } = parseConfig(
      'upstreams: { ghcr.io: {} }\nincludeNamespaces: [team-a]\nexcludeNamespaces: [kube-system]\n',
    );
    assert.deepEqual(
      warnings.map(({ line, key }) => `${line} ${key}`),
      ['2 includeNamespaces', '3 excludeNamespaces'],
    );
  });

  test('selectors by labels are taken as ketches/registry-proxy writes them, and warned about when they say anything', () => {
    const empty = 'proxies: { ghcr.io: m.example }\npodSelector: {}\nnamespaceSelector: {}\n';
    assert.deepEqual(
      parseConfig(empty).warnings.filter(({ key }) => key.endsWith('Selector')),
      [],
    );
    const { warnings } = parseConfig('upstreams: { ghcr.io: {} }\npodSelector: { mirror: "yes" }\n');
    assert.deepEqual(
      warnings.map(({ line, key }) => `${line} ${key}`),
      ['2 podSelector'],
    );
  });

  test('plain http is warned about, but not on loopback', () => {
    const { warnings } = parseConfig(
      'upstreams:\n  a.io: { endpoint: "http://a.io" }\n  b.io: { endpoint: "http://127.0.0.1:5000" }\n',
    );
    assert.deepEqual(
      warnings.map(({ line, key }) => `${line} ${key}`),
      ['2 upstreams.a.io.endpoint'],
    );
  });
});
