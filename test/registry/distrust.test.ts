import assert from 'node:assert/strict';
import process from 'node:process';
import { afterEach, before, beforeEach, suite, test } from 'node:test';
import { contentOf, type Image, makeImage, noise } from '../support/image.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { sendContent, sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
const NO_WAITING = 'tags: { ttl: 0s }';
const NOW = 'tags: { ttl: 0s, staleWhileRevalidate: 0s }';

suite('what is not to be trusted', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let other: UpstreamRegistry;
  let mirror: Mirror;

  before(async () => {
    image = await makeImage([{ big: noise(1_000_000) }]);
  });
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    other = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}", ${NO_WAITING} } }`);
  });
  afterEach(async () => {
    for (const server of [upstream, other]) server.fault = undefined;
    await mirror.close();
    await Promise.all([upstream.stop(), other.stop()]);
  });

  const layer = () => image.blobs[1] ?? assert.fail();
  const get = (path: string, headers: Record<string, string> = {}) =>
    fetch(`${mirror.url}/v2/${REPOSITORY}/${path}`, { headers });
  const assertPulls = async (): Promise<void> => {
    for (const [path, bytes] of [
      ['manifests/v1', image.manifest.bytes],
      [`manifests/${image.manifest.digest}`, image.manifest.bytes],
      [`blobs/${layer().digest}`, layer().bytes],
    ] as const) {
      const answer = await get(path);
      assert.equal(answer.status, 200, path);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes), path);
    }
  };

  test('a mirror that answers 200 with a page does not keep the registry itself from being asked', async () => {
    other.fault = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>This domain is for sale</html>');
      return true;
    };
    mirror.configure(`upstreams: { docker.io: { endpoint: "${upstream.url}", mirror: "${other.url}" } }`);
    await assertPulls();
  });

  test('a mirror that sent wrong bytes for a blob is not asked for it again', async () => {
    other.fault = (request, response) => {
      sendContent(request, response, { ...layer(), bytes: noise(layer().bytes.length, 77) });
      return true;
    };
    mirror.configure(`upstreams: { docker.io: { endpoint: "${upstream.url}", mirror: "${other.url}" } }`);
    await assert.rejects(async () => (await get(`blobs/${layer().digest}`)).arrayBuffer());
    await assertPulls();
  });

  test('a connection that the upstream has just closed is no failure', async () => {
    let sockets = 0;
    upstream.fault = (request, response) => {
      // Answers each connection's first request and closes it at the second, as at the end of a keep-alive time.
      const isNew = response.socket?.listenerCount('weir-seen') === 0;
      if (isNew) {
        sockets += 1;
        response.socket?.on('weir-seen', () => {});
        return false;
      }
      request.socket.destroy();
      return true;
    };
    await assertPulls();
    assert.ok(sockets > 1, 'connections were closed amid the pull');
  });

  test('an upstream that answers with another range than was asked for costs no connection', async () => {
    upstream.fault = (_, response) => {
      response.writeHead(206, { 'content-range': 'bytes 5-9/100', 'content-length': 5 });
      response.write('x');
      return true;
    };
    const before = openSockets();
    for (let round = 0; round < 30; round++) assert.equal((await get(`blobs/${layer().digest}`)).status, 503);
    assert.ok(openSockets() < before + 20, `${openSockets() - before} more sockets are open`);
  });

  test("one upstream's word unlocks no other's blobs", async () => {
    await assertPulls();
    mirror.configure(
      `upstreams: { docker.io: { endpoint: "${upstream.url}" }, evil.example: { endpoint: "${other.url}" } }`,
    );
    other.fault = (request, response) => {
      if (request.method !== 'HEAD') return false;
      response.writeHead(200, { 'content-length': layer().bytes.length }).end();
      return true;
    };
    const answer = await fetch(`${mirror.url}/v2/any/thing/blobs/${layer().digest}?ns=evil.example`);
    assert.equal(answer.status, 404);
  });

  test('a blob that a host has sent wrongly, while it said that it has it, stays the other host’s', async () => {
    await assertPulls();
    mirror.configure(
      `upstreams: { docker.io: { endpoint: "${upstream.url}" }, evil.example: { endpoint: "${other.url}" } }`,
    );
    const goOn = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    other.fault = (request, response) => {
      response.writeHead(200, { 'content-length': layer().bytes.length });
      if (request.method === 'HEAD') response.end();
      else {
        response.write(Buffer.alloc(1000));
        asked.resolve();
        void goOn.promise.then(() => response.end(Buffer.alloc(layer().bytes.length - 1000)));
      }
      return true;
    };
    const evil = (repository: string) =>
      fetch(`${mirror.url}/v2/${repository}/blobs/${layer().digest}?ns=evil.example`).then((answer) =>
        answer.arrayBuffer(),
      );
    const first = evil('x/one');
    await asked.promise;
    const second = evil('x/two');
    goOn.resolve();
    await Promise.all([assert.rejects(first), assert.rejects(second)]);
    await assert.rejects(evil('x/two'));
  });

  test('a list of referrers that is millions of nothings is refused soon', { timeout: 20_000 }, async () => {
    upstream.fault = (_, response) => {
      const entries = Array.from({ length: 1_000_000 }, () => '{}').join();
      response.end(`{"schemaVersion":2,"manifests":[${entries}]}`);
      return true;
    };
    assert.equal((await get(`referrers/${image.manifest.digest}`)).status, 503);
    upstream.fault = undefined;
    await assertPulls();
  });

  test('a HEAD that is refused does not hide what a GET is given', async () => {
    await mirror.close();
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`, {
      absentTtl: 60_000,
    });
    upstream.fault = (request, response) => {
      if (request.method !== 'HEAD') return false;
      sendJson(response, 403, {});
      return true;
    };
    const head = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${layer().digest}`, { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get('content-length'), String(layer().bytes.length));
    await assertPulls();
  });

  for (const status of [400, 403, 405, 501])
    test(`a tag is looked up by GET where HEAD is answered with ${status}`, async () => {
      mirror.configure(`upstreams: { docker.io: { endpoint: "${upstream.url}", ${NOW} } }`);
      upstream.fault = (request, response) => {
        if (request.method !== 'HEAD') return false;
        sendJson(response, status, {});
        return true;
      };
      await assertPulls();
      const moved = await makeImage([{ moved: 'on' }]);
      upstream.push(REPOSITORY, 'v1', moved);
      const answer = await get('manifests/v1');
      assert.equal(answer.headers.get('docker-content-digest'), moved.manifest.digest);
    });

  for (const status of [401, 403])
    test(`a tag that the upstream refuses with ${status} is not forgotten`, async () => {
      mirror.configure(`upstreams: { docker.io: { endpoint: "${upstream.url}", ${NOW} } }`);
      await assertPulls();
      for (const [theirs, ours] of [
        [status, 404],
        [500, 200],
      ] as const) {
        upstream.fault = (_, response) => {
          sendJson(response, theirs, {});
          return true;
        };
        assert.equal((await get('manifests/v1')).status, ours);
      }
    });

  test('a tag that the upstream has deleted does not come back when the upstream fails later', async () => {
    await (await get('manifests/v1')).arrayBuffer();
    upstream.deleteTag(REPOSITORY, 'v1');
    assert.equal((await get('manifests/v1')).status, 404);
    upstream.fault = (_, response) => {
      sendJson(response, 500, {});
      return true;
    };
    assert.equal((await get('manifests/v1')).status, 503);
    upstream.fault = undefined;
    upstream.push(REPOSITORY, 'v1', image);
    for (let round = 0; round < 3; round++) assert.equal((await get('manifests/v1')).status, 200);
  });

  test("one client's Accept decides nothing for the others", async () => {
    const old = contentOf('application/vnd.docker.distribution.manifest.v1+prettyjws', '{"schemaVersion":1}');
    upstream.fault = (request, response) => {
      const [first] = (request.headers.accept ?? '').split(',');
      sendContent(request, response, first === old.mediaType ? old : image.manifest);
      return true;
    };
    const asked = await get('manifests/v1', { accept: `${old.mediaType};q=1, ${'x/y, '.repeat(2000)}` });
    assert.equal(asked.headers.get('content-type'), image.manifest.mediaType);
    assert.ok((upstream.seen[0]?.headers.accept?.length ?? 0) < 2000);
  });

  test('a loop through several mirrors ends at once', async () => {
    const second = await startMirror(`upstreams: { docker.io: { endpoint: "${mirror.url}" } }`);
    mirror.configure(`upstreams: { docker.io: { endpoint: "${second.url}" } }`);
    const answer = await get('manifests/v1');
    assert.equal(answer.status, 503);
    assert.match(
      await mirror.metrics.metrics(),
      /weir_registry_requests_total\{kind="other",status="508",cache="none"\} 1/,
    );
    await second.close();
  });

  test('what an upstream does not have is not asked for again at once', async () => {
    await mirror.close();
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`, {
      absentTtl: 60_000,
    });
    for (let round = 0; round < 5; round++) assert.equal((await get('manifests/none')).status, 404);
    assert.equal(upstream.seen.length, 1);
  });
});

function openSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
}
