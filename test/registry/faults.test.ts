import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, before, beforeEach, suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { contentOf, type Image, makeImage, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { sendContent, sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
const NOW = '{ ttl: 0s, staleWhileRevalidate: 0s }';

suite('an upstream that fails:', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let mirror: Mirror;

  before(async () => {
    image = await makeImage([{ big: noise(2_000_000) }]);
  });
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    mirror = await startMirror(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: { ttl: 0s, staleWhileRevalidate: 0s, budget: 200ms } } }`,
    );
  });
  afterEach(async () => {
    upstream.fault = undefined;
    await mirror.close();
    await upstream.stop();
  });

  const layer = () => image.blobs[1] ?? assert.fail();
  const blobUrl = () => `${mirror.url}/v2/${REPOSITORY}/blobs/${layer().digest}`;
  const manifestUrl = (reference = 'v1') => `${mirror.url}/v2/${REPOSITORY}/manifests/${reference}`;
  const onLayer = (fault: (request: IncomingMessage, response: ServerResponse) => void) => {
    upstream.fault = (request, response) => {
      if (request.method !== 'GET' || !request.url?.includes(layer().digest)) return false;
      fault(request, response);
      return true;
    };
  };
  /** The blob as a whole is right, and the store holds it and nothing else on the way. */
  const assertServedRightly = async () => {
    upstream.fault = undefined;
    const answer = await fetch(blobUrl());
    assert.equal(answer.status, 200);
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(layer().bytes));
  };
  const storedBlobs = async () => {
    const entries = await readdir(join(mirror.directory, 'store'), { recursive: true });
    return entries.filter((entry) => /^blobs\/sha256\/..\/./.test(entry));
  };

  test('a body with another digest never becomes whole for any client, and is not stored', async () => {
    const wrong = Buffer.from(layer().bytes);
    wrong.writeUInt8(wrong.readUInt8(1_000_000) ^ 1, 1_000_000);
    onLayer((_, response) => response.writeHead(200, { 'content-length': wrong.length }).end(wrong));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 5 }, async () => (await fetch(blobUrl())).arrayBuffer()),
    );
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      Array.from({ length: 5 }, () => 'rejected'),
    );
    assert.deepEqual(await storedBlobs(), []);
    await assertServedRightly();
  });

  test('an empty body for a blob that is not empty is not passed on', async () => {
    onLayer((_, response) => response.writeHead(200, { 'content-length': 0 }).end());
    assert.equal((await fetch(blobUrl())).status, 503);
    await assertServedRightly();
  });

  test('a body that is longer than was told is cut off', async () => {
    onLayer((_, response) => {
      response.writeHead(200);
      response.write(layer().bytes);
      response.end('more');
    });
    await assert.rejects(async () => {
      const answer = await fetch(blobUrl());
      assert.equal(answer.status, 200);
      await answer.arrayBuffer();
    });
    await assertServedRightly();
  });

  test('a body that breaks off is asked for again from where it ended, and the client notices nothing', async () => {
    const cut = 700_000;
    let broken = 0;
    onLayer((request, response) => {
      if (request.headers.range !== undefined) return sendContent(request, response, layer());
      broken += 1;
      response.writeHead(200, { 'content-length': layer().bytes.length });
      response.write(layer().bytes.subarray(0, cut), () => response.destroy());
    });
    const answer = await fetch(blobUrl());
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(layer().bytes));
    assert.equal(broken, 1);
    assert.match(upstream.seen.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d*-$/);
  });

  test('an upstream that does not know ranges is read again from the beginning', async () => {
    let tries = 0;
    onLayer((_, response) => {
      tries += 1;
      response.writeHead(200, { 'content-length': layer().bytes.length });
      if (tries > 1) response.end(layer().bytes);
      else response.write(layer().bytes.subarray(0, 500_000), () => response.destroy());
    });
    assert.ok(Buffer.from(await (await fetch(blobUrl())).arrayBuffer()).equals(layer().bytes));
    assert.equal(tries, 2);
  });

  test('a body that breaks off for good ends the answer, and nothing of it is kept', async () => {
    onLayer((request, response) => {
      if (request.headers.range !== undefined) {
        response.destroy();
        return;
      }
      response.writeHead(200, { 'content-length': layer().bytes.length });
      response.write(layer().bytes.subarray(0, 500_000), () => response.destroy());
    });
    await assert.rejects(async () => (await fetch(blobUrl())).arrayBuffer());
    assert.deepEqual(await storedBlobs(), []);
    await assertServedRightly();
  });

  test('an upstream that hangs is answered for with 503', async () => {
    upstream.fault = () => true;
    const [blob, manifest] = await Promise.all([fetch(blobUrl()), fetch(manifestUrl())]);
    assert.deepEqual([blob.status, manifest.status], [503, 503]);
    assert.match(await manifest.text(), /UNAVAILABLE.*docker\.io/);
    await assertServedRightly();
  });

  test('a body that stalls is asked for again, then given up', async () => {
    onLayer((_, response) => {
      response.writeHead(200, { 'content-length': layer().bytes.length });
      response.write(layer().bytes.subarray(0, 500_000));
    });
    await assert.rejects(async () => (await fetch(blobUrl())).arrayBuffer());
    await assertServedRightly();
  });

  const statuses: Readonly<Record<number, number>> = {
    401: 404,
    403: 404,
    404: 404,
    429: 503,
    500: 503,
    502: 503,
    503: 503,
  };
  for (const [theirs, ours] of Object.entries(statuses))
    test(`${theirs} becomes ${ours}, so that the node goes on to the upstream itself`, async () => {
      upstream.fault = (_, response) => {
        sendJson(response, Number(theirs), {});
        return true;
      };
      assert.deepEqual([(await fetch(blobUrl())).status, (await fetch(manifestUrl())).status], [ours, ours]);
    });

  test('a known tag is served, marked as stale, while the upstream is away, limits or fails', async () => {
    await (await fetch(manifestUrl())).arrayBuffer();
    for (const status of [429, 500]) {
      await mirror.close();
      mirror = await startMirror(
        `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: { ttl: 0s, staleWhileRevalidate: 0s, budget: 200ms } } }`,
      );
      upstream.fault = undefined;
      await (await fetch(manifestUrl())).arrayBuffer();
      upstream.fault = (_, response) => {
        sendJson(response, status, {});
        return true;
      };
      const answer = await fetch(manifestUrl());
      assert.equal(answer.status, 200, String(status));
      assert.match(answer.headers.get('cache-status') ?? '', /^weir; hit; ttl=-\d+; detail=stale$/);
    }
    assert.match(await mirror.metrics.metrics(), /weir_registry_stale_tags_total\{upstream="docker.io"\} 1/);
  });

  test('a tag that the upstream no longer has is gone', async () => {
    await (await fetch(manifestUrl())).arrayBuffer();
    upstream.deleteTag(REPOSITORY, 'v1');
    assert.equal((await fetch(manifestUrl())).status, 404);
  });

  test('a page of the network in between is no manifest, and is not remembered as one', async () => {
    upstream.fault = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Log in to the network</html>');
      return true;
    };
    assert.equal((await fetch(manifestUrl())).status, 503);
    upstream.fault = undefined;
    assert.equal((await fetch(manifestUrl())).status, 200);
  });

  test('a manifest with another digest than was asked for, or told, is refused', async () => {
    const other = contentOf(image.manifest.mediaType, '{"schemaVersion":2}');
    upstream.fault = (request, response) => {
      sendContent(request, response, { ...other, digest: image.manifest.digest });
      return true;
    };
    assert.equal((await fetch(manifestUrl(image.manifest.digest))).status, 503);
    assert.equal((await fetch(manifestUrl())).status, 503);
    upstream.fault = undefined;
    assert.ok(Buffer.from(await (await fetch(manifestUrl())).arrayBuffer()).equals(image.manifest.bytes));
  });

  test('a manifest without end is not read into memory', async () => {
    upstream.fault = (_, response) => {
      response.writeHead(200, { 'content-type': image.manifest.mediaType });
      const chunk = Buffer.alloc(1024 * 1024, ' ');
      const more = (): void => {
        while (!response.destroyed && response.write(chunk));
      };
      response.on('drain', more);
      more();
      return true;
    };
    assert.equal((await fetch(manifestUrl())).status, 503);
  });

  test('an encoded blob is refused, since its digest would be another', async () => {
    onLayer((_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'));
    assert.equal((await fetch(blobUrl())).status, 503);
  });
});

suite('tags', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  let images: Image[];

  before(async () => {
    images = await Promise.all(['one', 'two'].map((text) => makeImage([{ text }])));
  });
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', images[0] ?? assert.fail());
  });
  afterEach(async () => {
    await mirror.close();
    await upstream.stop();
  });
  const digestOfTag = async () => {
    const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
    await answer.arrayBuffer();
    return answer.headers.get('docker-content-digest');
  };

  const assertStale = async () => {
    const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
    assert.equal(answer.headers.get('docker-content-digest'), images[0]?.manifest.digest);
    assert.match(answer.headers.get('cache-status') ?? '', /detail=stale$/);
  };

  test('are not looked up again within their time to live', async () => {
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
    await digestOfTag();
    upstream.push(REPOSITORY, 'v1', images[1] ?? assert.fail());
    assert.equal(await digestOfTag(), images[0]?.manifest.digest);
    assert.equal(upstream.seen.length, 1);
  });

  test('are confirmed with a HEAD after it, and fetched once when they moved', async () => {
    mirror = await startMirror(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: { ttl: 0s, staleWhileRevalidate: 0s, budget: 200ms } } }`,
    );
    await digestOfTag();
    await digestOfTag();
    assert.deepEqual(
      upstream.seen.map(({ method }) => method),
      ['GET', 'HEAD'],
    );
    upstream.push(REPOSITORY, 'v1', images[1] ?? assert.fail());
    assert.equal(await digestOfTag(), images[1]?.manifest.digest);
    assert.deepEqual(
      upstream.seen.map(({ method }) => method),
      ['GET', 'HEAD', 'HEAD', 'GET'],
    );
  });

  test('are served at once while they are looked up, soon after their time to live', async () => {
    mirror = await startMirror(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: { ttl: 0s, staleWhileRevalidate: 60s } } }`,
    );
    await digestOfTag();
    upstream.push(REPOSITORY, 'v1', images[1] ?? assert.fail());
    const fetched = Promise.withResolvers<void>();
    upstream.fault = (request) => {
      if (request.method === 'GET') fetched.resolve();
      return false;
    };
    const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
    assert.equal(answer.headers.get('docker-content-digest'), images[0]?.manifest.digest);
    assert.match(answer.headers.get('cache-status') ?? '', /detail=revalidating$/);
    await fetched.promise;
    // The answer to that GET is on its way; one of the next requests sees it.
    while ((await digestOfTag()) !== images[1]?.manifest.digest);
  });

  test('are not waited for longer than their budget, and not at all soon after', async () => {
    mirror = await startMirror(
      `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: { ttl: 0s, staleWhileRevalidate: 0s, budget: 100ms } } }`,
    );
    await digestOfTag();
    upstream.fault = () => true;
    for (let round = 0; round < 3; round++) {
      const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
      assert.equal(answer.headers.get('docker-content-digest'), images[0]?.manifest.digest);
      assert.match(answer.headers.get('cache-status') ?? '', /detail=stale$/);
    }
    assert.equal(upstream.seen.length, 2, 'the upstream that hangs was asked once');
  });

  test('are confirmed by one HEAD, however many ask while it is on its way', async () => {
    const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: ${NOW} } }`;
    const { config } = parseConfig(yaml);
    const everybody = Promise.withResolvers<void>();
    let clients = 0;
    mirror = await startMirror(yaml, {
      config: () => {
        clients += 1;
        if (clients > 30) everybody.resolve();
        return config;
      },
    });
    await digestOfTag();
    upstream.seen.length = 0;
    upstream.fault = (_, response) => {
      void everybody.promise.then(() => response.end());
      response.writeHead(200, { 'docker-content-digest': images[0]?.manifest.digest });
      return true;
    };
    const told = await Promise.all(Array.from({ length: 30 }, digestOfTag));
    assert.deepEqual(new Set(told), new Set([images[0]?.manifest.digest]));
    assert.deepEqual(
      upstream.seen.map(({ method }) => method),
      ['HEAD'],
    );
  });

  suite('that are known from before a restart', () => {
    let directory: string;
    beforeEach(async () => {
      directory = await temporaryDirectory();
      await start();
      await digestOfTag();
      await mirror.close();
    });
    afterEach(() => rm(directory, { recursive: true, force: true }));

    const start = async () => {
      const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: ${NOW} } }`;
      mirror = await startMirror(yaml, { directory });
    };
    test('are served as stale while the upstream fails', async () => {
      upstream.fault = (_, response) => {
        sendJson(response, 500, {});
        return true;
      };
      await start();
      await assertStale();
    });

    test('are stale also where their manifest has to be fetched again', async () => {
      const { digest } = images[0]?.manifest ?? assert.fail();
      await (await FilesystemStore.open(join(directory, 'store'))).remove(digest);
      upstream.fault = (request, response) => {
        if (request.method !== 'HEAD') return false;
        sendJson(response, 429, {});
        return true;
      };
      await start();
      await assertStale();
      assert.match(
        await mirror.metrics.metrics(),
        /weir_registry_stale_tags_total\{upstream="docker.io"\} 1/,
      );
    });
  });

  test('are looked up once for all who ask at the same time', async () => {
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
    const asked = await Promise.all(Array.from({ length: 30 }, digestOfTag));
    assert.deepEqual(new Set(asked), new Set([images[0]?.manifest.digest]));
    assert.equal(upstream.seen.length, 1);
  });
});
