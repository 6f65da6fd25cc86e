import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from '@iarna/toml';
import { EMPTY_HOSTS_FILE, parseHosts } from '../../agent/hosts-file.ts';
import { type Found, renderHosts } from '../../agent/hosts-toml.ts';
import { routeFor } from '../../config/routing.ts';
import { bodyOf, configOf, MIRROR, NOTE } from './node-files.ts';

const NOTHING: Found = { was: 'no directory', file: EMPTY_HOSTS_FILE };

function render(host: string, upstream: string, original?: string, mirror = MIRROR): string {
  const route = routeFor(configOf(`upstreams: { '${host}': ${upstream} }`), host);
  const found: Found =
    original === undefined ? NOTHING : { was: { original: '0'.repeat(32) }, file: parseHosts(original) };
  return bodyOf(renderHosts(route, mirror, found) ?? assert.fail('no file'));
}

const OURS = `[host."http://127.0.0.1:30500"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`;

const golden: readonly { name: string; actual: () => string; text: string }[] = [
  {
    name: 'Docker Hub goes to the mirror first, then to registry-1.docker.io',
    actual: () => render('docker.io', '{}'),
    text: `server = "https://registry-1.docker.io"\n\n${OURS}`,
  },
  {
    name: 'a host with a port keeps it',
    actual: () => render('harbor.corp:8443', '{}'),
    text: `server = "https://harbor.corp:8443"\n\n${OURS}`,
  },
  {
    name: 'an endpoint with a path is the root of an API',
    actual: () => render('ghcr.io', '{ endpoint: https://harbor.corp/ghcr }'),
    text: `server = "https://harbor.corp/v2/ghcr"\noverride_path = true\n\n${OURS}`,
  },
  {
    name: 'without a direct way the server is the mirror too',
    actual: () => render('nvcr.io', '{ direct: false }'),
    text: `server = "http://127.0.0.1:30500"\n\n${OURS}`,
  },
  {
    name: "nodes go to the operator's mirror themselves",
    actual: () => render('gcr.io', '{ mirror: https://gcr.example, via: node }'),
    text: `server = "https://gcr.io"

[host."https://gcr.example"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "10s"
`,
  },
  {
    name: "nodes go to the operator's mirror alone, below its path",
    actual: () => render('gcr.io', '{ mirror: https://gcr.example/proxy, via: node, direct: false }'),
    text: `server = "https://gcr.example/v2/proxy"
override_path = true

[host."https://gcr.example/v2/proxy"]
capabilities = [ "pull", "resolve" ]
override_path = true
dial_timeout = "10s"
`,
  },
  {
    name: 'an IPv6 mirror is taken literally, without the slash at its end',
    actual: () => render('quay.io', '{}', undefined, 'http://[fd00::1]:5000/'),
    text: `server = "https://quay.io"

[host."http://[fd00::1]:5000"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`,
  },
  {
    name: 'a mirror below a path is left to containerd, which appends /v2',
    actual: () => render('quay.io', '{}', undefined, 'https://mirror.corp/weir'),
    text: `server = "https://quay.io"

[host."https://mirror.corp/weir"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`,
  },
  {
    name: 'a mirror below a repository prefix overrides the path',
    actual: () => render('quay.io', '{}', undefined, 'https://mirror.corp/v2/quay'),
    text: `server = "https://quay.io"

[host."https://mirror.corp/v2/quay"]
capabilities = [ "pull", "resolve" ]
override_path = true
dial_timeout = "3s"
`,
  },
  {
    name: "a user's hosts come after ours in their order, with their settings",
    actual: () =>
      render(
        'docker.io',
        '{}',
        `server = "https://hub.corp"
ca = "hub.pem"
[host."https://b.corp"]
  ca = ["b.crt"]
  client = [["b.cert", "b.key"]]
  skip_verify = true
  override_path = true
  [host."https://b.corp".header]
    x-team = "infra"
[host."https://a.corp"]
  capabilities = ["pull"]
`,
      ),
    text: `server = "https://hub.corp"
ca = "hub.pem"

${OURS}
[host."https://b.corp"]
ca = [ "b.crt" ]
client = [ [ "b.cert", "b.key" ] ]
skip_verify = true
override_path = true

  [host."https://b.corp".header]
  x-team = "infra"

[host."https://a.corp"]
capabilities = [ "pull" ]
`,
  },
  {
    name: 'a host without settings is still written as a table of its own, where containerd looks for hosts',
    actual: () => render('quay.io', '{}', '[host."https://a.corp"]\n'),
    text: `server = "https://quay.io"

${OURS}
[host."https://a.corp"]
override_path = false
`,
  },
  {
    name: 'a host that is ours already is not listed twice, however it is written',
    actual: () =>
      render(
        'quay.io',
        '{}',
        '[host."http://127.0.0.1:30500/v2/"]\n[host."a.corp"]\ncapabilities = ["pull"]\n',
      ),
    text: `server = "https://quay.io"

${OURS}
[host."a.corp"]
capabilities = [ "pull" ]
`,
  },
  {
    name: "what describes the user's server is not told to our mirror",
    actual: () =>
      render(
        'quay.io',
        '{ direct: false }',
        'server = "https://q.corp"\nca = "q.crt"\nskip_verify = true\n[header]\nauthorization = "Basic eA=="\n[host."https://a.corp"]\ncapabilities = ["pull"]\n',
      ),
    text: `server = "http://127.0.0.1:30500"

${OURS}
[host."https://a.corp"]
capabilities = [ "pull" ]
`,
  },
  {
    name: 'what containerd passes over without a server does not come into force by ours',
    actual: () => render('quay.io', '{}', 'capabilities = ["push"]\noverride_path = true\nca = "q.crt"\n'),
    text: `server = "https://quay.io"\nca = "q.crt"\n\n${OURS}`,
  },
  {
    name: 'a plain HTTP server is given no TLS setting, which would make it HTTPS',
    actual: () => render('quay.io', '{ endpoint: "http://quay.corp" }', 'ca = "q.crt"\nskip_verify = true\n'),
    text: `server = "http://quay.corp"\n\n${OURS}`,
  },
];

for (const { name, actual, text } of golden) test(name, () => assert.equal(actual(), `${NOTE}\n${text}`));

test('a host that is not configured, or switched off, has no file', () => {
  const config = configOf('enabled: false\nupstreams: { quay.io: {} }');
  assert.equal(renderHosts(routeFor(config, 'quay.io'), MIRROR, NOTHING), undefined);
  assert.equal(renderHosts(routeFor(config, 'ghcr.io'), MIRROR, NOTHING), undefined);
});

test('quotes and line ends in addresses and headers arrive as text', () => {
  const nasty = 'http://127.0.0.1:1/"]\n[host."http://evil"]\u007f\\';
  const route = routeFor(configOf('upstreams: { quay.io: {} }'), 'quay.io');
  const header = { 'x-"\n[host.evil]': `a"\n'''\n"""\nb = 1 \\` };
  const file = { root: {}, hosts: new Map([['https://a.corp"\n', { capabilities: ['pull'], header }]]) };
  const text = renderHosts(route, nasty, { was: 'no file', file }) ?? '';
  assert.match(text.split('\n')[0] ?? '', /^# weir \{"sha256".*\}$/);
  assert.deepEqual(parse(text), {
    server: 'https://quay.io',
    host: {
      [nasty]: { capabilities: ['pull', 'resolve'], dial_timeout: '3s' },
      'https://a.corp"\n': { capabilities: ['pull'], header },
    },
  });
});

test('what cannot be written down truly is refused before it is written', () => {
  const route = routeFor(configOf('upstreams: { quay.io: {} }'), 'quay.io');
  // Keys of digits come first in every table of JavaScript, so that the order of the hosts would change.
  const file = { root: {}, hosts: new Map([['10', { capabilities: ['pull'] }]]) };
  assert.throws(() => renderHosts(route, MIRROR, { was: 'no file', file }), /would not read back/);
});

for (const [problem, text] of [
  ['an unknown capability', '[host.a]\ncapabilities = ["fetch"]'],
  ['a duration that containerd cannot read', '[host.a]\ndial_timeout = "3 seconds"'],
  ['a certificate that is no file name', 'ca = 5'],
  ['a table twice', '[host.a]\n[host.a]'],
  ['a list of hosts', '[[host]]\nurl = "a"'],
  ['a pair of three', 'client = [["a", "b", "c"]]'],
] as const)
  test(`a file with ${problem} is refused, as containerd refuses it`, () => {
    assert.throws(() => parseHosts(text));
  });
