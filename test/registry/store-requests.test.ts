import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { FragileStore } from '../support/fragile-store.ts';
import { type Image, makeImage } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';

/** What a pull asks of the store, each of which is one request to S3 (docs/s3-layout.md, "Requests"). */
suite('a pull of what is stored asks the store', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  let store: FragileStore;
  let directory: string;
  let image: Image;

  beforeEach(async () => {
    directory = await temporaryDirectory();
    image = await makeImage([{ hello: 'world' }]);
    upstream = await UpstreamRegistry.start();
    upstream.push('library/app', 'v1', image);
    await replica();
    await get('manifests/v1');
    for (const { digest } of image.blobs) await get(`blobs/${digest}`);
    await mirror.close();
    await replica();
  });
  afterEach(async () => {
    await mirror.close();
    await upstream.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /** A registry that has nothing in memory, over the same store. */
  const replica = async (): Promise<void> => {
    const real = await FilesystemStore.open(join(directory, 'store'));
    store = new FragileStore(real);
    const yaml = `upstreams: { docker.io: { endpoint: "${upstream.url}" } }`;
    mirror = await startMirror(yaml, { store, spoolDirectory: real.temporaryDirectory, directory });
  };
  const get = async (path: string): Promise<void> => {
    const answer = await fetch(`${mirror.url}/v2/library/app/${path}`);
    assert.equal(answer.status, 200);
    await answer.arrayBuffer();
  };
  const asked = async (path: string): Promise<Record<string, number>> => {
    store.asked.clear();
    await get(path);
    return Object.fromEntries(store.asked);
  };

  test('for a blob once, and the first time for its link', async () => {
    const digest = image.blobs[1]?.digest;
    assert.deepEqual(await asked(`blobs/${digest}`), { link: 1, open: 1 });
    assert.deepEqual(await asked(`blobs/${digest}`), { open: 1 });
  });

  test('for the manifest of a tag twice, and then not at all', async () => {
    assert.deepEqual(await asked('manifests/v1'), { tag: 1, open: 1 });
    assert.deepEqual(await asked('manifests/v1'), {});
    assert.deepEqual(await asked(`manifests/${image.manifest.digest}`), {});
  });

  test('for a manifest by its digest twice, and then not at all', async () => {
    assert.deepEqual(await asked(`manifests/${image.manifest.digest}`), { link: 1, open: 1 });
    assert.deepEqual(await asked(`manifests/${image.manifest.digest}`), {});
  });
});
