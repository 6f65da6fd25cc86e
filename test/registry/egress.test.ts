import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { createSecureServer } from 'node:http2';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { type Identity, makeIdentity } from '../support/certificates.ts';
import { type Image, makeImage, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import {
  type ProxyOptions,
  startHttpProxy,
  startRudeProxy,
  startSilentProxy,
  startSocksProxy,
  startTlsFront,
  type TestProxy,
} from '../support/proxies.ts';
import { sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
/** A name that only the proxies can resolve. */
const NAME = 'registry.example';
const CONNECT_MS = 500;

suite('the way out of the cluster:', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let directory: string;
  let identity: Identity;
  const closers: (() => Promise<void>)[] = [];

  before(async () => {
    image = await makeImage([{ big: noise(300_000) }]);
    directory = await temporaryDirectory();
    identity = await makeIdentity(directory, [`DNS:${NAME}`, 'DNS:localhost', 'IP:127.0.0.1']);
  });
  after(() => rm(directory, { recursive: true, force: true }));
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
  });
  afterEach(async () => {
    upstream.fault = undefined;
    for (const close of closers.splice(0).toReversed()) await close();
    await upstream.stop();
  });

  const opened = <T extends { close: () => Promise<void> }>(thing: T): T => {
    closers.push(() => thing.close());
    return thing;
  };
  const proxyOf = async (scheme: 'http' | 'socks5', options: ProxyOptions = {}): Promise<TestProxy> => {
    const start = scheme === 'http' ? startHttpProxy : startSocksProxy;
    return opened(await start({ dial: () => upstream.host, ...options }));
  };
  /** A registry with one upstream, by these ways. */
  const mirrorBy = async (
    proxies: readonly string[],
    { endpoint = `http://${NAME}`, ca = false, trusted = [] as readonly string[] } = {},
  ): Promise<Mirror> =>
    opened(
      await startMirror(
        JSON.stringify({
          upstreams: {
            'docker.io': { endpoint, egress: 'out', ...(ca ? { ca: 'ca.pem' } : {}), trustedHosts: trusted },
          },
          egress: { out: { proxy: proxies } },
        }),
        { caDirectory: directory, timeouts: { connect: CONNECT_MS, answer: 1_000, idle: 1_000 } },
      ),
    );
  const tlsFront = async () => opened(await startTlsFront(upstream.host, identity));
  const assertPulls = async (mirror: Mirror): Promise<void> => {
    const manifest = await tag(mirror);
    assert.equal(manifest.status, 200, await manifest.clone().text());
    assert.ok(Buffer.from(await manifest.arrayBuffer()).equals(image.manifest.bytes));
    for (const { digest, bytes } of image.blobs) {
      const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes));
    }
  };

  for (const scheme of ['http', 'socks5'] as const) {
    const asked = { http: `CONNECT ${NAME}:443`, socks5: `SOCKS ${NAME}:443` }[scheme];

    test(`a ${scheme} proxy carries a pull over TLS, and resolves the name`, async () => {
      const front = await tlsFront();
      const proxy = await proxyOf(scheme, { dial: () => front.host });
      await assertPulls(await mirrorBy([proxy.url], { endpoint: `https://${NAME}`, ca: true }));
      assert.deepEqual([...new Set(proxy.seen)], [asked]);
      assert.ok(upstream.seen.every(({ headers }) => headers.host === NAME));
    });

    test(`a ${scheme} proxy carries a pull from a registry without TLS`, async () => {
      const proxy = await proxyOf(scheme);
      await assertPulls(await mirrorBy([proxy.url]));
      const first = {
        http: `GET http://${NAME}/v2/${REPOSITORY}/manifests/v1`,
        socks5: `SOCKS ${NAME}:80`,
      }[scheme];
      assert.equal(proxy.seen[0], first);
      assert.ok(upstream.seen.every(({ headers }) => headers.host === NAME));
    });

    for (const endpoint of [`http://${NAME}`, `https://${NAME}`])
      test(`a ${scheme} proxy is shown the user and password of its URL, for ${endpoint}`, async () => {
        const front = await tlsFront();
        const proxy = await proxyOf(scheme, {
          login: 'us@r:p/ss:word',
          dial: () => (endpoint.startsWith('https') ? front.host : upstream.host),
        });
        const url = proxy.url.replace(
          '//',
          `//${encodeURIComponent('us@r')}:${encodeURIComponent('p/ss:word')}@`,
        );
        await assertPulls(await mirrorBy([url], { endpoint, ca: true }));
        assert.deepEqual([...new Set(proxy.logins)], ['us@r:p/ss:word']);
        for (const { headers } of upstream.seen) {
          assert.equal(headers['proxy-authorization'], undefined);
          assert.equal(headers.authorization, undefined);
        }
      });

    for (const endpoint of [`http://${NAME}`, `https://${NAME}`]) {
      const target = async (): Promise<string> =>
        endpoint.startsWith('https') ? (await tlsFront()).host : upstream.host;

      test(`what a ${scheme} proxy fails to do, the next one does, for ${endpoint}`, async () => {
        const dialled = await target();
        const failing: Readonly<Record<string, string>> = {
          'is down': await deadProxy(scheme),
          'hangs up': opened(await startRudeProxy(scheme)).url,
          'wants another login': (await proxyOf(scheme, { login: 'a:b' })).url.replace('//', '//a:c@'),
        };
        for (const [why, url] of Object.entries(failing)) {
          const next = await proxyOf(scheme, { dial: () => dialled });
          const began = performance.now();
          await assertPulls(await mirrorBy([url, next.url], { endpoint, ca: true }));
          assert.ok(next.seen.length > 0, why);
          assert.ok(performance.now() - began < 10 * CONNECT_MS, why);
        }
      });

      test(`a ${scheme} proxy that hangs is cut by the time for connections, for ${endpoint}`, async () => {
        const dialled = await target();
        const silent = opened(await startSilentProxy(scheme));
        const next = await proxyOf(scheme, { dial: () => dialled });
        const mirror = await mirrorBy([silent.url, next.url], { endpoint, ca: true });
        const began = performance.now();
        const answer = await tag(mirror);
        assert.equal(answer.status, 200);
        assert.ok(performance.now() - began < 3_500, `${performance.now() - began} ms`);
        assert.deepEqual([silent.seen.length, next.seen.length], [1, 1]);
      });
    }

    test(`a ${scheme} proxy that cannot reach the registry is not the last one asked`, async () => {
      const refusing = await proxyOf(scheme, { refusal: scheme === 'http' ? 503 : 0x04 });
      const front = await tlsFront();
      const next = await proxyOf(scheme, { dial: () => front.host });
      await assertPulls(await mirrorBy([refusing.url, next.url], { endpoint: `https://${NAME}`, ca: true }));
      assert.ok(refusing.seen.length > 0);
    });

    for (const status of [404, 429, 500])
      test(`${status} from the registry behind a ${scheme} proxy is its answer, and no other way is tried`, async () => {
        const front = await tlsFront();
        const first = await proxyOf(scheme, { dial: () => front.host });
        const second = await proxyOf(scheme, { dial: () => front.host });
        upstream.fault = (_, response) => {
          sendJson(response, status, {});
          return true;
        };
        const mirror = await mirrorBy([first.url, second.url], { endpoint: `https://${NAME}`, ca: true });
        assert.equal((await tag(mirror)).status, status === 404 ? 404 : 503);
        assert.deepEqual([first.seen.length, second.seen.length, upstream.seen.length], [1, 0, 1]);
      });

    test(`a registry that hangs behind a ${scheme} proxy is answered for with 503`, async () => {
      for (const endpoint of [`http://${NAME}`, `https://${NAME}`]) {
        const front = await tlsFront();
        const proxy = await proxyOf(scheme, {
          dial: () => (endpoint.startsWith('https') ? front.host : upstream.host),
        });
        upstream.fault = () => true;
        const began = performance.now();
        await assertRefused(
          await mirrorBy([proxy.url], { endpoint, ca: true }),
          /docker\.io: the request failed/,
        );
        assert.ok(performance.now() - began < 5_000, `${performance.now() - began} ms`);
      }
    });

    test(`an authority behind a ${scheme} proxy is trusted by "ca", and not without`, async () => {
      const front = await tlsFront();
      const proxy = await proxyOf(scheme, { dial: () => front.host });
      const endpoint = `https://${NAME}`;
      await assertRefused(await mirrorBy([proxy.url], { endpoint }), /docker\.io: the request failed/);
      assert.equal(upstream.seen.length, 0);
      await assertPulls(await mirrorBy([proxy.url], { endpoint, ca: true }));
    });

    test(`a certificate for another name is refused behind a ${scheme} proxy`, async () => {
      const front = await tlsFront();
      const proxy = await proxyOf(scheme, { dial: () => front.host });
      const mirror = await mirrorBy([proxy.url], { endpoint: 'https://other.example', ca: true });
      await assertRefused(mirror, /docker\.io: the request failed/);
      assert.equal(upstream.seen.length, 0);
    });

    test(`a registry by its address is reached over TLS by a ${scheme} proxy`, async () => {
      const front = await tlsFront();
      const proxy = await proxyOf(scheme, { dial: (target) => target });
      await assertPulls(await mirrorBy([proxy.url], { endpoint: `https://${front.host}`, ca: true }));
      assert.ok(proxy.seen.every((line) => line.endsWith(` ${front.host}`)));
    });

    const forbidden = [
      'http://127.0.0.1:1/x',
      'http://[::1]:1/x',
      'http://localhost:1/x',
      'http://localhost.:1/x',
      'http://169.254.169.254/latest/meta-data',
      'http://metadata.google.internal/x',
      'https://kubernetes.default.svc/x',
      'http://2130706433:1/x',
    ];
    test(`a ${scheme} proxy is not asked for internal addresses to which the registry redirects`, async () => {
      const proxy = await proxyOf(scheme);
      for (const location of forbidden) {
        upstream.fault = (_, response) => {
          response.writeHead(307, { location }).end();
          return true;
        };
        await assertRefused(
          await mirrorBy([proxy.url]),
          /an internal address; if that is meant, add \S+ to its \\"trustedHosts\\"/,
        );
      }
      assert.ok(
        proxy.seen.every((line) => line.includes(NAME)),
        proxy.seen.join('\n'),
      );
    });
  }

  test('"direct" may come last, and first', async () => {
    const { url } = upstream;
    await assertPulls(
      await mirrorBy([await deadProxy('http'), await deadProxy('socks5'), 'direct'], { endpoint: url }),
    );
    const proxy = await proxyOf('http');
    await assertPulls(await mirrorBy(['direct', proxy.url], { endpoint: url }));
    assert.deepEqual(proxy.seen, []);
    await upstream.stop();
    const other = await UpstreamRegistry.start();
    closers.push(() => other.stop());
    other.push(REPOSITORY, 'v1', image);
    const last = await proxyOf('http', { dial: () => other.host });
    await assertPulls(await mirrorBy(['direct', last.url], { endpoint: url }));
    await upstream.resume();
  });

  test('an https proxy carries a pull, with and without TLS behind it', async () => {
    const trusted = getCACertificates('default');
    closers.push(async () => setDefaultCACertificates(trusted));
    setDefaultCACertificates([...trusted, identity.ca]);
    const front = await tlsFront();
    for (const [endpoint, dialled] of [
      [`https://${NAME}`, front.host],
      [`http://${NAME}`, upstream.host],
    ] as const) {
      const proxy = await proxyOf('http', { dial: () => dialled, login: 'a:b' });
      const secure = opened(await startTlsFront(proxy.host, identity));
      await assertPulls(await mirrorBy([`https://a:b@${secure.host}`], { endpoint, ca: true }));
      assert.ok(proxy.seen.length > 0);
    }
  });

  test('bodies do not share the small window of an HTTP/2 connection', async () => {
    const versions: string[] = [];
    const server = createSecureServer({ ...identity, allowHTTP1: true }, (request, response) => {
      versions.push(request.httpVersion);
      response.writeHead(200, { 'content-type': image.manifest.mediaType }).end(image.manifest.bytes);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(async () => {
      await new Promise((resolve) => server.close(resolve));
    });
    const address = server.address();
    assert.ok(address !== null && typeof address !== 'string');
    const host = `127.0.0.1:${address.port}`;
    const proxy = await proxyOf('http', { dial: () => host });
    await tag(await mirrorBy(['direct'], { endpoint: `https://${host}`, ca: true }));
    await tag(await mirrorBy([proxy.url], { endpoint: `https://${NAME}`, ca: true }));
    assert.deepEqual(versions, ['1.1', '1.1']);
  });

  test('when no way leads there, the answer is 503', async () => {
    const ways = [await deadProxy('http'), await deadProxy('socks5')];
    await assertRefused(await mirrorBy(ways), /docker\.io: the request failed/);
  });

  test('a name that leads to an internal address directly is not tried by a proxy either', async () => {
    const proxy = await proxyOf('http');
    upstream.fault = (_, response) => {
      response.writeHead(307, { location: `http://localhost:${upstream.host.split(':')[1]}/x` }).end();
      return true;
    };
    await assertRefused(
      await mirrorBy(['direct', proxy.url], { endpoint: upstream.url }),
      /an internal address/,
    );
    assert.deepEqual(proxy.seen, []);
  });

  suite('"ca"', () => {
    test('makes an authority trusted on the direct way, and without it the registry is refused', async () => {
      const front = await tlsFront();
      const endpoint = `https://${front.host}`;
      await assertRefused(await mirrorBy(['direct'], { endpoint }), /docker\.io: the request failed/);
      assert.equal(upstream.seen.length, 0);
      await assertPulls(await mirrorBy(['direct'], { endpoint, ca: true }));
    });

    test('is read again when it changes, without a restart', async () => {
      const endpoint = `https://${(await tlsFront()).host}`;
      const own = await temporaryDirectory();
      closers.push(() => rm(own, { recursive: true, force: true }));
      const mirror = opened(
        await startMirror(`upstreams: { docker.io: { endpoint: "${endpoint}", ca: corp.pem } }`, {
          caDirectory: own,
        }),
      );
      const path = join(own, 'corp.pem');
      await assertRefused(mirror, /docker\.io: cannot read its CA bundle \S+corp\.pem/);
      await writeFile(path, 'no certificate');
      await assertRefused(mirror, /docker\.io: cannot read its CA bundle \S+corp\.pem/);
      await writeFile(path, `# the authority of a corporation\n${identity.cert}`);
      await assertRefused(mirror, /docker\.io: the request failed/);
      await writeFile(path, `${identity.cert}${identity.ca}`);
      await assertPulls(mirror);
    });

    test('needs --ca-dir', async () => {
      const mirror = opened(
        await startMirror('upstreams: { docker.io: { endpoint: "https://127.0.0.1:9", ca: corp.pem } }'),
      );
      await assertRefused(
        mirror,
        /docker\.io: its CA bundle corp\.pem is in no directory; say with --ca-dir/,
      );
    });
  });
});

/** A port of this machine on which nobody listens. */
async function deadProxy(scheme: 'http' | 'socks5'): Promise<string> {
  const proxy = await startSilentProxy(scheme);
  await proxy.close();
  return proxy.url;
}

function tag(mirror: Mirror): Promise<Response> {
  return fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
}

async function assertRefused(mirror: Mirror, message: RegExp): Promise<void> {
  const answer = await tag(mirror);
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), message);
}
