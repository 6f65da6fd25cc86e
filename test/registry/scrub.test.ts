import assert from 'node:assert/strict';
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { type Digest, hexOf } from '../../oci/digest.ts';
import { type Image, makeImage, makeIndex, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { weir } from '../support/weir-command.ts';

const REPOSITORY = 'library/app';

suite('stored content', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  let directory: string;
  let image: Image;

  beforeEach(async () => {
    directory = await temporaryDirectory();
    image = await makeImage([{ big: noise(1_000_000) }]);
    upstream = await UpstreamRegistry.start();
    upstream.push(REPOSITORY, 'v1', image);
    mirror = await start();
  });
  afterEach(async () => {
    await mirror.close();
    await upstream.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const start = (more = ''): Promise<Mirror> =>
    startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" ${more} } }`, { directory });
  const restart = async (): Promise<void> => {
    await mirror.close();
    mirror = await start();
  };
  const pull = async (): Promise<void> => {
    const manifest = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`);
    assert.ok(Buffer.from(await manifest.arrayBuffer()).equals(image.manifest.bytes));
    for (const { digest, bytes } of image.blobs) {
      const blob = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${digest}`);
      assert.ok(Buffer.from(await blob.arrayBuffer()).equals(bytes));
    }
  };
  const pathOf = (digest: Digest): string =>
    join(directory, 'store/blobs/sha256', hexOf(digest).slice(0, 2), hexOf(digest));
  const layer = () => image.blobs[1] ?? assert.fail();

  test('that is gone or cut short is fetched again, and nobody notices', async () => {
    await pull();
    await restart();
    await truncate(pathOf(layer().digest), 100);
    await pull();
    await restart();
    await rm(pathOf(layer().digest));
    await rm(pathOf(image.manifest.digest));
    await pull();
    assert.equal(upstream.count('GET', layer().digest), 3);
  });

  test('that is cut short is fetched again also for a repository that another one has brought it for', async () => {
    upstream.push('library/other', 'v1', image);
    const pullOther = async (): Promise<void> => {
      const blob = await fetch(`${mirror.url}/v2/library/other/blobs/${layer().digest}`);
      assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer().bytes));
    };
    await pull();
    await restart();
    await pullOther();
    await restart();
    await truncate(pathOf(layer().digest), 100);
    await pullOther();
  });

  test('of a manifest that was overwritten is fetched again', async () => {
    await pull();
    await restart();
    await writeFile(pathOf(image.manifest.digest), '{"schemaVersion":2,"evil":true}');
    await pull();
  });

  test('that was overwritten is found and removed by the scrub, and fetched again', async () => {
    await pull();
    await restart();
    await writeFile(pathOf(layer().digest), noise(layer().bytes.length, 99));
    const store = `file:${join(directory, 'store')}`;
    const dry = await weir('registry', 'scrub', '--store', store, '--dry-run');
    assert.equal(dry.code, 1);
    assert.match(dry.stdout, new RegExp(`^damaged ${layer().digest}: `));
    const real = await weir('registry', 'scrub', '--store', store);
    assert.equal(real.code, 0);
    assert.match(real.stdout, new RegExp(`^removed ${layer().digest}: .*\\n3 blobs .*; 1 are damaged\\n$`));
    await pull();
    assert.match(
      (await weir('registry', 'scrub', '--store', store, '--dry-run')).stdout,
      /^3 blobs .*; 0 are damaged\n$/,
    );
  });

  test('that cannot be read is reported and left by the scrub, which goes on with the rest', async () => {
    await pull();
    await restart();
    await rm(pathOf(layer().digest));
    await mkdir(pathOf(layer().digest));
    await writeFile(pathOf(image.manifest.digest), 'damaged');
    const store = `file:${join(directory, 'store')}`;
    const { code, stdout, stderr } = await weir('registry', 'scrub', '--store', store);
    assert.equal(code, 1);
    assert.match(stdout, new RegExp(`^unreadable ${layer().digest}: EISDIR`, 'm'));
    assert.match(stdout, new RegExp(`^removed ${image.manifest.digest}: `, 'm'));
    assert.match(stdout, /^3 blobs .*; 1 are damaged, 1 could not be read$/m);
    assert.match(stderr, /look at the store, and run it again/);
  });

  for (const [warm, asked] of [
    ['linux/arm64', []],
    // What a node is, its door says, whatever it asks for.
    ['nodes', ['linux/arm64', 'linux/mips64le', 'Linux', `linux/${'s390x'.repeat(10)}`]],
  ] as const)
    test(`of other platforms is fetched in advance where that is wanted: ${warm}`, async () => {
      const arm = await makeImage([{ hello: 'arm' }], 'arm64');
      const other = await makeImage([{ hello: 's390x' }], 's390x');
      for (const one of [arm, other]) upstream.push(REPOSITORY, one.manifest.digest.replace(':', '-'), one);
      upstream.pushManifest(REPOSITORY, 'multi', makeIndex({ amd64: image, arm64: arm, s390x: other }));
      await mirror.close();
      mirror = await start(`, warm: [${warm}]`);
      for (const platform of asked)
        await (await fetch(`${mirror.url}/v2/`, { headers: { 'Weir-Platform': platform } })).arrayBuffer();
      // Of an image for one platform there is nothing to warm up, also for those that come after it.
      await (await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/v1`)).arrayBuffer();
      await (await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/multi`)).arrayBuffer();
      for (const { digest } of arm.blobs) while (upstream.count('GET', digest) === 0) await setTimeout(10);
      assert.equal(upstream.count('GET', arm.manifest.digest), 1);
      assert.equal(upstream.count('GET', other.manifest.digest), 0);
      assert.equal(upstream.count('GET', image.manifest.digest), 0);
    });
});
