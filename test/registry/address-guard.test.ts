import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import type { Config, Upstream } from '../../config/config.ts';
import { parseConfig } from '../../config/parse.ts';
import { AddressGuard, ForbiddenTarget, type Resolve } from '../../registry/address-guard.ts';
import { Egress } from '../../registry/egress.ts';
import { type Image, makeImage } from '../support/image.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const API_SERVERS = ['10.96.0.1', 'fd00:10::1', 'api.cluster.example'];
const guard = new AddressGuard(API_SERVERS);

function configOf(upstream: object): { config: Config; upstream: Upstream } {
  const { config } = parseConfig(JSON.stringify({ upstreams: { 'docker.io': upstream } }));
  return { config, upstream: config.upstreams.get('docker.io') ?? assert.fail() };
}

suite('a URL', () => {
  /** What the host of each is for `new URL`, and what `trustedHosts` must hold to allow it. */
  const internal: readonly (readonly [url: string, name: string])[] = [
    ['http://127.0.0.1/', '127.0.0.1:80'],
    ['https://127.0.0.1/', '127.0.0.1:443'],
    ['http://127.0.0.1:5000/', '127.0.0.1:5000'],
    ['http://127.255.255.254:5000/', '127.255.255.254:5000'],
    ['http://0.0.0.0:5000/', '0.0.0.0:5000'],
    ['http://0.1.2.3:5000/', '0.1.2.3:5000'],
    ['http://[::1]:5000/', '[::1]:5000'],
    ['http://[0:0:0:0:0:0:0:1]:5000/', '[::1]:5000'],
    ['http://[::]:5000/', '[::]:5000'],
    ['http://[::ffff:127.0.0.1]:5000/', '[::ffff:127.0.0.1]:5000'],
    ['http://[::ffff:a9fe:a9fe]/', '[::ffff:169.254.169.254]:80'],
    ['http://[::127.0.0.1]:5000/', '[::127.0.0.1]:5000'],
    ['http://[64:ff9b::127.0.0.1]:5000/', '[64:ff9b::7f00:1]:5000'],
    ['http://[64:ff9b::a9fe:a9fe]/', '[64:ff9b::a9fe:a9fe]:80'],
    ['http://[64:ff9b::10.96.0.1]/', '[64:ff9b::a60:1]:80'],
    ['http://2130706433:5000/', '127.0.0.1:5000'],
    ['http://0x7f000001:5000/', '127.0.0.1:5000'],
    ['http://0x7f.1:5000/', '127.0.0.1:5000'],
    ['http://0177.0.0.1:5000/', '127.0.0.1:5000'],
    ['http://127.1:5000/', '127.0.0.1:5000'],
    ['http://127.0.0.1.:5000/', '127.0.0.1:5000'],
    ['http://①②⑦.0.0.1:5000/', '127.0.0.1:5000'],
    ['http://0:5000/', '0.0.0.0:5000'],
    ['http://169.254.169.254/latest/meta-data/', '169.254.169.254:80'],
    ['http://169.254.0.1:5000/', '169.254.0.1:5000'],
    ['http://100.100.100.200/', '100.100.100.200:80'],
    ['http://168.63.129.16/', '168.63.129.16:80'],
    ['http://[fe80::1]:5000/', '[fe80::1]:5000'],
    ['http://[febf::1]:5000/', '[febf::1]:5000'],
    ['http://[fd00:ec2::254]/', '[fd00:ec2::254]:80'],
    ['http://[fd20:ce::254]/', '[fd20:ce::254]:80'],
    ['http://metadata.google.internal/', 'metadata.google.internal:80'],
    ['http://METADATA.google.internal/', 'metadata.google.internal:80'],
    ['http://metadata.goog/', 'metadata.goog:80'],
    ['https://10.96.0.1/api', '10.96.0.1:443'],
    ['https://10.96.0.1:6443/api', '10.96.0.1:6443'],
    ['https://[fd00:10::1]/api', '[fd00:10::1]:443'],
    ['https://api.cluster.example/api', 'api.cluster.example:443'],
    ['https://kubernetes/api', 'kubernetes:443'],
    ['https://kubernetes.default/api', 'kubernetes.default:443'],
    ['https://kubernetes.default.svc/api', 'kubernetes.default.svc:443'],
    ['https://kubernetes.default.svc.cluster.local/api', 'kubernetes.default.svc.cluster.local:443'],
    ['http://localhost:5000/', 'localhost:5000'],
    ['http://LocalHost:5000/', 'localhost:5000'],
    ['http://registry.localhost:5000/', 'registry.localhost:5000'],
    ['http://localhost.localdomain:5000/', 'localhost.localdomain:5000'],
    ['http://ip6-localhost:5000/', 'ip6-localhost:5000'],
  ];

  test('of an internal host is refused, with what would allow it', () => {
    const { upstream } = configOf({});
    for (const [url, name] of internal) {
      const refusal = refusalOf(url, upstream);
      assert.ok(refusal !== undefined, url);
      assert.match(
        refusal.message,
        /^it leads to \S+, an internal address; if that is meant, add \S+ to its "trustedHosts"$/,
      );
      const remedy = /add (\S+) to/.exec(refusal.message)?.[1];
      assert.equal(refusalOf(url, configOf({ trustedHosts: [remedy] }).upstream), undefined, url);
      assert.equal(new URL(`http://${remedy}`).port || '80', new URL(`http://${name}`).port || '80');
    }
  });

  test('of an internal host is allowed when "trustedHosts" or the endpoint names it with its port', () => {
    for (const [url, name] of internal) {
      assert.equal(refusalOf(url, configOf({ trustedHosts: [name] }).upstream), undefined, url);
      const other = name.replace(/\d+$/, '4999');
      assert.ok(refusalOf(url, configOf({ trustedHosts: [other] }).upstream) !== undefined, url);
    }
    for (const key of ['endpoint', 'mirror'])
      for (const origin of [
        'http://127.0.0.1:5000',
        'http://localhost:5000',
        'http://[::1]:5000',
        'https://127.1',
      ]) {
        const { upstream } = configOf({ [key]: origin });
        assert.equal(refusalOf(`${origin}/v2/`, upstream), undefined, origin);
        assert.ok(refusalOf('http://127.0.0.1:5001/', upstream) !== undefined);
      }
  });

  test('named without a port is trusted at the ports of http and https', () => {
    const { upstream } = configOf({ trustedHosts: ['127.0.0.1', '[::1]'] });
    for (const url of ['http://127.0.0.1/', 'https://127.0.0.1/', 'http://[::1]/', 'https://[::1]/'])
      assert.equal(refusalOf(url, upstream), undefined, url);
    assert.ok(refusalOf('http://127.0.0.1:5000/', upstream) !== undefined);
  });

  test('with a dot at the end of an internal name is refused as well', () => {
    const { upstream } = configOf({});
    for (const url of [
      'http://localhost.:5000/',
      'http://metadata.google.internal./',
      'https://kubernetes.default.svc./',
      'https://kubernetes.default.svc.cluster.local./',
      'https://api.cluster.example./',
    ])
      assert.ok(refusalOf(url, upstream) !== undefined, url);
  });

  test('of any other host is allowed', () => {
    const { upstream } = configOf({});
    for (const url of [
      'https://registry-1.docker.io/v2/',
      'https://10.96.0.2/',
      'https://10.0.0.5:5000/',
      'https://192.168.1.1:5000/',
      'https://1.0.0.1/',
      'https://126.255.255.255/',
      'https://128.0.0.1/',
      'https://[fd00:10::2]/',
      'https://[2001:db8::1]/',
      'https://[64:ff9b::808:808]/',
      'https://[fec0::1]/',
      'https://localhost.example/',
      'https://notlocalhost/',
      'https://kubernetes.example/',
      'https://127.0.0.1.example/',
    ])
      assert.equal(refusalOf(url, upstream), undefined, url);
  });
});

suite('a name', () => {
  let registry: UpstreamRegistry;
  const egresses: Egress[] = [];

  before(async () => {
    registry = await UpstreamRegistry.start();
    registry.fault = (_, response) => {
      sendJson(response, 200, {});
      return true;
    };
  });
  afterEach(async () => {
    for (const egress of egresses.splice(0)) await egress.close();
    registry.seen.length = 0;
  });
  after(() => registry.stop());

  const port = () => registry.host.split(':')[1] ?? '';
  const ask = async (name: string, addresses: readonly string[], upstreamYaml: object): Promise<number> => {
    const { config, upstream } = configOf(upstreamYaml);
    const judge = new AddressGuard(API_SERVERS, resolverOf(addresses));
    const egress = new Egress({
      guard: judge,
      caDirectory: undefined,
      timeouts: { connect: 1_000, answer: 1_000, idle: 1_000 },
    });
    egresses.push(egress);
    const url = new URL(`http://${name}:${port()}/`);
    judge.check(url, upstream);
    const [way] = await egress.ways(upstream, config);
    const answer = await way?.dispatcher.request({ origin: url.origin, path: '/', method: 'GET' });
    await answer?.body.dump();
    return answer?.statusCode ?? 0;
  };

  for (const addresses of [
    ['127.0.0.1'],
    ['::1'],
    ['::ffff:127.0.0.1'],
    ['0.0.0.0'],
    ['169.254.169.254'],
    ['fe80::1%eth0'],
    ['10.96.0.1'],
    ['127.0.0.1', '::1'],
  ])
    test(`that resolves to ${addresses.join(' and ')} is refused at the moment of the connection`, async () => {
      await assert.rejects(ask('registry.example', addresses, {}), (error: unknown) => {
        assert.ok(error instanceof ForbiddenTarget);
        const names = addresses.map(
          (address) => `${address.includes(':') ? `[${address}]` : address}:${port()}`,
        );
        assert.equal(
          error.message,
          `it leads to registry.example (${names.join(', ')}), an internal address; if that is meant, add ${names.join(', ')} to its "trustedHosts"`,
        );
        return true;
      });
      assert.deepEqual(registry.seen, []);
    });

  test('that resolves to loopback is refused although the endpoint is that name', async () => {
    const endpoint = `http://registry.example:${port()}`;
    await assert.rejects(ask('registry.example', ['127.0.0.1'], { endpoint }), ForbiddenTarget);
    assert.deepEqual(registry.seen, []);
  });

  test('that resolves to a named address and port is allowed, and to another port is not', async () => {
    const trusted = { trustedHosts: [`127.0.0.1:${port()}`] };
    assert.equal(await ask('registry.example', ['127.0.0.1'], trusted), 200);
    await assert.rejects(
      ask('registry.example', ['127.0.0.1'], { trustedHosts: ['127.0.0.1:1'] }),
      ForbiddenTarget,
    );
    await assert.rejects(ask('registry.example', ['::1'], trusted), ForbiddenTarget);
  });

  test('that resolves to an internal address among others is connected to the others only', async () => {
    const trusted = { trustedHosts: [`127.0.0.1:${port()}`] };
    assert.equal(await ask('registry.example', ['127.0.0.2', '::1', '127.0.0.1'], trusted), 200);
  });

  test('that stands for this machine is allowed where it is named itself', async () => {
    for (const name of ['localhost', 'localhost.', 'registry.localhost']) {
      const trusted = { endpoint: `http://${name.replace(/\.$/, '')}:${port()}` };
      if (name.endsWith('.')) await assert.rejects(ask(name, ['127.0.0.1'], trusted), ForbiddenTarget);
      else assert.equal(await ask(name, ['127.0.0.1'], trusted), 200, name);
    }
  });
});

suite('an upstream that leads elsewhere', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let elsewhere: UpstreamRegistry;
  let mirror: Mirror;

  before(async () => {
    image = await makeImage([{ hello: 'world' }]);
  });
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    elsewhere = await UpstreamRegistry.start();
    elsewhere.push('library/app', 'v1', image);
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
  });
  afterEach(async () => {
    await mirror.close();
    await upstream.stop();
    await elsewhere.stop();
  });

  const tag = () => fetch(`${mirror.url}/v2/library/app/manifests/v1`);
  const trust = (names: readonly string[]): void =>
    mirror.configure(
      JSON.stringify({ upstreams: { 'docker.io': { endpoint: upstream.url, trustedHosts: names } } }),
    );
  const redirect = (host: string) => {
    upstream.fault = (request, response) => {
      response.writeHead(307, { location: `http://${host}${request.url}` }).end();
      return true;
    };
  };
  const assertRefused = async (target: string): Promise<void> => {
    const answer = await tag();
    assert.equal(answer.status, 503);
    const text = await answer.text();
    assert.ok(text.includes(`docker.io: it leads to ${target}`), text);
    assert.match(text, /an internal address; if that is meant, add \S+ to its \\"trustedHosts\\"/);
    assert.deepEqual(elsewhere.seen, []);
  };

  test('by a redirect to another port of this machine is refused, and followed when that is named', async () => {
    redirect(elsewhere.host);
    await assertRefused(elsewhere.host);
    trust([elsewhere.host]);
    assert.equal((await tag()).status, 200);
  });

  test('by a redirect to a name of this machine is refused, and followed when that is named', async () => {
    const target = elsewhere.host.replace('127.0.0.1', 'localhost');
    redirect(target);
    await assertRefused(target);
    trust([target]);
    assert.equal((await tag()).status, 200);
  });

  test('by a redirect without end, to no URL, or to another protocol is refused', async () => {
    redirect(upstream.host);
    assert.match(await (await tag()).text(), /it redirected more than 5 times/);
    for (const [location, message] of [
      ['http://[', /it redirects to what is no URL/],
      ['file:///etc/passwd', /it redirects to file:/],
      ['ftp://mirror.example/x', /it redirects to ftp:/],
    ] as const) {
      upstream.fault = (_, response) => {
        response.writeHead(302, { location }).end();
        return true;
      };
      const answer = await tag();
      assert.equal(answer.status, 503);
      assert.match(await answer.text(), message);
    }
  });

  test('by its token realm to another port of this machine is refused, and asked when that is named', async () => {
    upstream.push('library/app', 'v1', image);
    upstream.fault = (request, response) => {
      if (request.headers.authorization === 'Bearer anonymous') return false;
      response.setHeader('www-authenticate', `Bearer realm="${elsewhere.url}/token",service="x"`);
      sendJson(response, 401, {});
      return true;
    };
    await assertRefused(elsewhere.host);
    trust([elsewhere.host]);
    assert.equal((await tag()).status, 200);
    assert.equal(elsewhere.seen.length, 1);
  });
});

function refusalOf(url: string, upstream: Upstream): ForbiddenTarget | undefined {
  try {
    guard.check(new URL(url), upstream);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof ForbiddenTarget);
    return error;
  }
}

function resolverOf(addresses: readonly string[]): Resolve {
  const found = addresses.map(
    (address): LookupAddress => ({ address, family: address.includes(':') ? 6 : 4 }),
  );
  return (_hostname, _options, callback) => setImmediate(callback, null, found);
}
