import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import { contentOf, type Image, makeImage, makeIndex, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { sendContent, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';

suite('a pull through the registry', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let mirror: Mirror;

  before(async () => {
    image = await makeImage([{ hello: 'world' }, { big: noise(2_000_000) }]);
  });
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
  });
  afterEach(async () => {
    upstream.fault = undefined;
    await mirror.close();
    await upstream.stop();
  });

  const fetchFrom = (path: string, init: RequestInit = {}) =>
    fetch(`${mirror.url}/v2/${REPOSITORY}/${path}`, init);
  const layer = () => image.blobs[2] ?? assert.fail();

  test('carries what containerd needs of a HEAD', async () => {
    const answer = await fetchFrom('manifests/v1?ns=docker.io', { method: 'HEAD' });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('docker-content-digest'), image.manifest.digest);
    assert.equal(answer.headers.get('content-length'), String(image.manifest.bytes.length));
    assert.equal(answer.headers.get('content-type'), image.manifest.mediaType);
  });

  test('asks the upstream once for everything, however often it is pulled', async () => {
    for (let round = 0; round < 3; round++) {
      assert.ok((await bytesOf(await fetchFrom('manifests/v1'))).equals(image.manifest.bytes));
      assert.ok(
        (await bytesOf(await fetchFrom(`manifests/${image.manifest.digest}`))).equals(image.manifest.bytes),
      );
      for (const blob of image.blobs)
        assert.ok((await bytesOf(await fetchFrom(`blobs/${blob.digest}`))).equals(blob.bytes));
    }
    assert.equal(upstream.seen.length, 1 + image.blobs.length);
  });

  test('is answered with the upstream away once it was pulled, also after a restart', async () => {
    const directory = await temporaryDirectory();
    const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}" } }`;
    const first = await startMirror(yaml, { directory });
    for (const path of ['manifests/v1', ...image.blobs.map(({ digest }) => `blobs/${digest}`)])
      await (await fetch(`${first.url}/v2/${REPOSITORY}/${path}`)).arrayBuffer();
    await first.close();
    await upstream.stop();

    const second = await startMirror(yaml, { directory });
    try {
      for (const [path, bytes] of [
        ['manifests/v1', image.manifest.bytes],
        [`manifests/${image.manifest.digest}`, image.manifest.bytes],
        ...image.blobs.map((blob) => [`blobs/${blob.digest}`, blob.bytes] as const),
      ] as const) {
        const answer = await fetch(`${second.url}/v2/${REPOSITORY}/${path}`);
        assert.equal(answer.status, 200, path);
        assert.ok((await bytesOf(answer)).equals(bytes), path);
      }
    } finally {
      await second.close();
      await upstream.resume();
    }
  });

  test('gets the anonymous token that the upstream wants, once for a repository', async () => {
    upstream.tokens = true;
    for (const { digest } of image.blobs)
      assert.equal((await fetchFrom(`blobs/${digest}`, { method: 'HEAD' })).status, 200);
    assert.deepEqual(
      upstream.seen
        .filter(({ path }) => path.startsWith('/token'))
        .map(({ path }) => decodeURIComponent(path)),
      [`/token?service=test&scope=repository:${REPOSITORY}:pull`],
    );
  });

  test('answers a HEAD for a blob that it just gave, although the upstream is away by then', async () => {
    const config = image.blobs[0] ?? assert.fail();
    assert.ok((await bytesOf(await fetchFrom(`blobs/${config.digest}`))).equals(config.bytes));
    await upstream.stop();
    try {
      const answer = await fetchFrom(`blobs/${config.digest}`, { method: 'HEAD' });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-length'), String(config.bytes.length));
    } finally {
      await upstream.resume();
    }
  });

  test('streams to every client while it fills, from one reading', async () => {
    const { digest, bytes } = layer();
    const goOn = Promise.withResolvers<void>();
    upstream.fault = (request, response) => {
      if (!request.url?.endsWith(digest)) return false;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 1_000_000));
      void goOn.promise.then(() => response.end(bytes.subarray(1_000_000)));
      return true;
    };
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => getOf(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`)),
    );
    // Every client holds bytes while the upstream still keeps the rest.
    await Promise.all(clients.map((client) => once(client, 'readable')));
    goOn.resolve();
    for (const client of clients) assert.ok((await buffer(client)).equals(bytes));
    assert.equal(upstream.count('GET', digest), 1);
  });

  test('goes on filling when its client leaves', async () => {
    const { digest, bytes } = layer();
    const goOn = Promise.withResolvers<void>();
    const sent = Promise.withResolvers<void>();
    upstream.fault = (request, response) => {
      if (!request.url?.endsWith(digest)) return false;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 1_000_000));
      void goOn.promise.then(() => response.end(bytes.subarray(1_000_000), () => sent.resolve()));
      return true;
    };
    const client = await getOf(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`);
    await once(client, 'readable');
    client.destroy();
    await once(client, 'close');
    goOn.resolve();
    await sent.promise;
    upstream.fault = undefined;
    assert.ok((await bytesOf(await fetchFrom(`blobs/${digest}`))).equals(bytes));
    assert.equal(upstream.count('GET', digest), 1);
  });

  test('takes a body whose length the upstream does not tell', async () => {
    const { digest, bytes } = layer();
    upstream.fault = (request, response) => {
      if (!request.url?.endsWith(digest)) return false;
      response.writeHead(200);
      response.write(bytes.subarray(0, 5));
      response.end(bytes.subarray(5));
      return true;
    };
    const answer = await fetchFrom(`blobs/${digest}`);
    assert.equal(answer.headers.get('content-length'), String(bytes.length));
    assert.ok((await bytesOf(answer)).equals(bytes));
  });

  test('answers a range, cold and warm, and what is no range with the whole', async () => {
    const { digest, bytes } = layer();
    const { length } = bytes;
    for (let round = 0; round < 2; round++) {
      const table: Readonly<Record<string, [number, number]>> = {
        'bytes=0-9': [0, 9],
        'bytes=1000000-': [1_000_000, length - 1],
        'bytes=-5': [length - 5, length - 1],
        [`bytes=5-${length + 100}`]: [5, length - 1],
      };
      for (const [range, [start, end]] of Object.entries(table)) {
        const answer = await fetchFrom(`blobs/${digest}`, { headers: { range } });
        assert.equal(answer.status, 206, range);
        assert.equal(answer.headers.get('content-range'), `bytes ${start}-${end}/${length}`);
        assert.ok((await bytesOf(answer)).equals(bytes.subarray(start, end + 1)), range);
      }
      for (const range of [
        'bytes',
        'bytes=',
        'bytes=-',
        'bytes=a-b',
        'bytes=1.5-2',
        'lines=0-1',
        'bytes=0-1,5-6',
        'bytes=0x1-2',
        'bytes=9-2',
      ]) {
        const answer = await fetchFrom(`blobs/${digest}`, { headers: { range } });
        assert.equal(answer.status, 200, range);
        assert.ok((await bytesOf(answer)).equals(bytes), range);
      }
      for (const range of [`bytes=${length}-`, 'bytes=-0', `bytes=99999999999999999999-`]) {
        const answer = await fetchFrom(`blobs/${digest}`, { headers: { range } });
        assert.equal(answer.status, 416, range);
        assert.equal(answer.headers.get('content-range'), `bytes */${length}`);
        await answer.arrayBuffer();
      }
    }
    assert.equal(upstream.count('GET', digest), 1);
  });

  test('hands out a blob under another repository only once the upstream has confirmed it there', async () => {
    const { digest, bytes } = layer();
    assert.ok((await bytesOf(await fetchFrom(`blobs/${digest}`))).equals(bytes));
    const other = `${mirror.url}/v2/other/app/blobs/${digest}`;
    assert.equal((await fetch(other)).status, 404);
    upstream.pushBlob('other/app', layer());
    assert.ok((await bytesOf(await fetch(other))).equals(bytes));
    assert.equal(upstream.count('GET', digest), 1, 'the bytes were fetched for the first repository only');
  });

  test('converts and trims nothing of an index', async () => {
    const arm = await makeImage([{ hello: 'arm' }], 'arm64');
    const index = makeIndex({ amd64: image, arm64: arm });
    upstream.pushManifest(REPOSITORY, 'multi', index);
    const answer = await fetchFrom('manifests/multi', { headers: { accept: image.manifest.mediaType } });
    assert.equal(answer.headers.get('content-type'), index.mediaType);
    assert.ok((await bytesOf(answer)).equals(index.bytes));
    assert.equal(upstream.count('GET', arm.manifest.digest), 0);
  });

  test('asks the upstream for unencoded bytes and names every type of manifest', async () => {
    await fetchFrom('manifests/v1', { headers: { accept: 'application/vnd.example+json' } });
    const seen = upstream.seen[0]?.headers;
    assert.equal(seen?.['accept-encoding'], 'identity');
    assert.match(
      seen?.accept ?? '',
      /index\.v1\+json.*manifest\.list\.v2\+json.*, application\/vnd\.example\+json$/,
    );
  });

  test('asks a mirror of the operator first, and the registry itself when that fails', async () => {
    const other = await UpstreamRegistry.start();
    try {
      other.push(`proxy/${REPOSITORY}`, 'v1', image);
      mirror.configure(
        `upstreams: { docker.io: { endpoint: "${upstream.url}", mirror: "${other.url}/proxy" } }`,
      );
      assert.equal((await fetchFrom('manifests/v1')).status, 200);
      assert.equal(upstream.seen.length, 0);
      await other.stop();
      assert.ok((await bytesOf(await fetchFrom(`blobs/${layer().digest}`))).equals(layer().bytes));
    } finally {
      await other.resume();
      await other.stop();
    }
  });

  test('follows a redirect to elsewhere, without taking the token there', async () => {
    upstream.tokens = true;
    const elsewhere = await UpstreamRegistry.start();
    elsewhere.fault = (request, response) => {
      sendContent(request, response, layer());
      return true;
    };
    upstream.fault = (request, response) => {
      if (!request.url?.endsWith(layer().digest) || request.headers.authorization === undefined) return false;
      response.writeHead(307, { location: `${elsewhere.url}/signed?x=1` }).end();
      return true;
    };
    mirror.configure(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", trustedHosts: ["${elsewhere.host}"] } }`,
    );
    assert.ok((await bytesOf(await fetchFrom(`blobs/${layer().digest}`))).equals(layer().bytes));
    assert.equal(elsewhere.seen[0]?.headers.authorization, undefined);
    await elsewhere.stop();
  });

  test('keeps an algorithm other than SHA-256', async () => {
    const content = contentOf('application/octet-stream', 'hello');
    const { createHash } = await import('node:crypto');
    const digest = `sha512:${createHash('sha512').update('hello').digest('hex')}` as const;
    upstream.pushBlob(REPOSITORY, { ...content, digest });
    assert.equal(await (await fetchFrom(`blobs/${digest}`)).text(), 'hello');
  });
});

suite('what is not a pull', () => {
  let mirror: Mirror;
  before(async () => {
    mirror = await startMirror('upstreams: { docker.io: { endpoint: "http://127.0.0.1:9" } }');
  });
  after(() => mirror.close());

  test('the version check answers 200, with the header that Docker looks for', async () => {
    for (const path of ['/v2/', '/v2']) {
      const answer = await fetch(`${mirror.url}${path}`);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0');
    }
  });

  test('writing is not supported', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      const answer = await fetch(`${mirror.url}/v2/library/app/manifests/v1`, { method });
      assert.equal(answer.status, 405, method);
      assert.equal(answer.headers.get('allow'), 'GET, HEAD');
    }
  });

  test('errors are those of the specification', async () => {
    const answer = await fetch(`${mirror.url}/v2/a/manifests/v1?ns=evil.example`);
    assert.equal(answer.status, 404);
    assert.equal(answer.headers.get('content-type'), 'application/json');
    const body: unknown = await answer.json();
    assert.deepEqual(body, {
      errors: [
        {
          code: 'NAME_UNKNOWN',
          message: `evil.example is no upstream of this mirror; add it to the configuration's "upstreams"`,
        },
      ],
    });
  });
});

async function getOf(url: string): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  get(url, { agent: false }, resolve).on('error', reject);
  return promise;
}

async function bytesOf(answer: Response): Promise<Buffer> {
  return Buffer.from(await answer.arrayBuffer());
}
