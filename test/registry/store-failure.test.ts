import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { hexOf } from '../../oci/digest.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { EVERYTHING, FragileStore } from '../support/fragile-store.ts';
import { type Image, makeImage, noise } from '../support/image.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';

suite('a store that fails', () => {
  let image: Image;
  let upstream: UpstreamRegistry;
  let store: FragileStore;
  let mirror: Mirror;
  let directory: string;

  before(async () => {
    image = await makeImage([{ big: noise(2_000_000) }]);
  });
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-fragile-'));
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    const real = await FilesystemStore.open(join(directory, 'store'));
    store = new FragileStore(real);
    const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}" } }`;
    mirror = await startMirror(yaml, { store, spoolDirectory: real.temporaryDirectory });
  });
  afterEach(async () => {
    upstream.fault = undefined;
    await mirror.close();
    await upstream.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const pull = async (): Promise<void> => {
    const manifest = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
    assert.ok(Buffer.from(await manifest.arrayBuffer()).equals(image.manifest.bytes));
    for (const { digest, bytes } of image.blobs) {
      const blob = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`);
      assert.ok(Buffer.from(await blob.arrayBuffer()).equals(bytes));
    }
  };

  const untilStored = async (): Promise<void> => {
    for (;;) {
      const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${image.blobs[1]?.digest}`);
      await answer.arrayBuffer();
      if (answer.headers.get('cache-status') === 'weir; hit') return;
      await setTimeout(10);
    }
  };

  test('does not keep anybody from pulling, from the first pull on', async () => {
    store.broken = EVERYTHING;
    await pull();
    await pull();
  });

  test('does not keep anybody from pulling when it fails later', async () => {
    await pull();
    store.broken = EVERYTHING;
    await pull();
  });

  test('amid a blob is made up for by the upstream, and the client notices nothing', async () => {
    await pull();
    store.breaksAt = 1_000_000;
    await pull();
  });

  test('amid a blob is made up for by one reading upstream, however many it fails', async () => {
    await pull();
    await untilStored();
    upstream.seen.length = 0;
    store.breaksAt = 1_000_000;
    store.broken = new Set(['putFile']);
    await Promise.all(Array.from({ length: 20 }, pull));
    assert.equal(upstream.count('GET', image.blobs[1]?.digest ?? ''), 1);
  });

  test('amid a blob that is damaged before that completes nothing', async () => {
    await pull();
    const { digest, bytes } = image.blobs[1] ?? assert.fail();
    await untilStored();
    const hex = hexOf(digest);
    const damaged = Buffer.from(bytes);
    damaged.writeUInt8(damaged.readUInt8(1_000) ^ 1, 1_000);
    await writeFile(join(directory, 'store/blobs/sha256', hex.slice(0, 2), hex), damaged);
    store.breaksAt = 1_000_000;
    const url = `${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`;
    await assert.rejects(async () => (await fetch(url)).arrayBuffer());
    store.breaksAt = Number.POSITIVE_INFINITY;
    // It is removed behind the answer, once the other reading has matched.
    while (!Buffer.from(await (await fetch(url)).arrayBuffer()).equals(bytes)) await setTimeout(10);
    await untilStored();
    await pull();
  });

  test('that hangs when it is to take a link keeps nobody waiting, and is waited for at the end', async () => {
    upstream.push('library/other', 'v1', image);
    await pull();
    await untilStored();
    const gate = Promise.withResolvers<void>();
    store.gates = new Map([['putLink', gate.promise]]);
    const { digest, bytes } = image.blobs[1] ?? assert.fail();
    const answer = await fetch(`${mirror.url}/v2/library/other/blobs/${digest}`);
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes));
    const closed = mirror.close();
    gate.resolve();
    await closed;
    const link = await store.link({ host: 'docker.io', repository: 'library/other' }, digest);
    assert.deepEqual(link, { size: bytes.length });
  });

  test('is offered again what it did not take', async () => {
    store.broken = EVERYTHING;
    await pull();
    store.broken = new Set();
    const real = await FilesystemStore.open(join(directory, 'store'));
    for (const { digest } of [image.manifest, ...image.blobs])
      while ((await real.stat(digest)) === undefined) await setTimeout(20);
  });

  test('makes no "not found" of what the upstream has lost: 503, since the store may have it', async () => {
    await pull();
    await mirror.close();
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`, {
      store,
      spoolDirectory: directory,
    });
    store.broken = EVERYTHING;
    upstream.fault = (_, response) => {
      sendJson(response, 404, {});
      return true;
    };
    for (const path of [
      'manifests/v1',
      `manifests/${image.manifest.digest}`,
      `blobs/${image.blobs[1]?.digest}`,
    ]) {
      const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/${path}`);
      assert.equal(answer.status, 503, path);
      await answer.arrayBuffer();
    }
  });
});
