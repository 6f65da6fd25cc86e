import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { FragileStore } from '../support/fragile-store.ts';
import { type Image, makeImage, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';

const until = async (condition: () => boolean): Promise<void> => {
  for (let tries = 0; !condition(); tries += 1) {
    assert.ok(tries < 500, 'it did not come about');
    await setTimeout(10);
  }
};

suite('a blob that a manifest has just named', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  let store: FragileStore;
  let directory: string;
  let image: Image;

  beforeEach(async () => {
    directory = await temporaryDirectory();
    image = await makeImage([{ big: noise(300_000) }]);
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    upstream.push('library/other', 'v1', image);
    await replica();
  });
  afterEach(async () => {
    store.gates = new Map();
    await mirror.close();
    await upstream.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const replica = async (): Promise<void> => {
    const real = await FilesystemStore.open(join(directory, 'store'));
    store = new FragileStore(real);
    const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}" } }`;
    mirror = await startMirror(yaml, { store, spoolDirectory: real.temporaryDirectory, directory });
  };
  const get = async (path: string, repository = REPOSITORY): Promise<Buffer> => {
    const answer = await fetch(`${mirror.url}/v2/${repository}/${path}`);
    assert.equal(answer.status, 200);
    return Buffer.from(await answer.arrayBuffer());
  };
  const asked = (digest: string): number => upstream.count('GET', digest);
  const layer = (): { digest: string; bytes: Buffer } => {
    const blob = image.blobs.at(-1);
    assert.ok(blob !== undefined);
    return blob;
  };

  test('is asked for upstream while the store is still searched, and once for all who want it', async () => {
    await get('manifests/v1');
    const gate = Promise.withResolvers<void>();
    store.gates = new Map([['link', gate.promise]]);
    const { digest, bytes } = layer();
    const answers = [get(`blobs/${digest}`), get(`blobs/${digest}`), get(`blobs/${digest}`)];
    await until(() => asked(digest) === 1);
    gate.resolve();
    for (const answer of await Promise.all(answers)) assert.ok(answer.equals(bytes));
    assert.equal(asked(digest), 1);
  });

  test('comes from the store all the same when it is there', async () => {
    await get('manifests/v1');
    const { digest, bytes } = layer();
    await get(`blobs/${digest}`);
    await mirror.close();
    await replica();
    // The manifest is fetched anew, as that of a tag that moved.
    await store.remove(image.manifest.digest);
    await get('manifests/v1');
    assert.ok((await get(`blobs/${digest}`)).equals(bytes));
    const metrics = await mirror.metrics.metrics();
    assert.match(metrics, /^weir_registry_requests_total\{kind="blob",status="200",cache="hit"\} 1$/m);
    assert.doesNotMatch(metrics, /kind="blob",status="200",cache="miss"/);
  });

  test('is handed out under another repository because the upstream has answered for that one', async () => {
    await get('manifests/v1');
    const { digest, bytes } = layer();
    await get(`blobs/${digest}`);
    await mirror.close();
    await replica();
    await get('manifests/v1', 'library/other');
    const before = upstream.count('HEAD', digest);
    assert.ok((await get(`blobs/${digest}`, 'library/other')).equals(bytes));
    assert.equal(upstream.count('HEAD', digest), before);
  });

  test('that the upstream does not give is refused as ever', async () => {
    await get('manifests/v1');
    const { digest } = layer();
    upstream.fault = (request, response) => {
      if (request.url?.includes('/blobs/') !== true) return false;
      response.writeHead(404).end();
      return true;
    };
    const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`);
    assert.equal(answer.status, 404);
    await answer.arrayBuffer();
  });
});
