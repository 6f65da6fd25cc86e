// The command over a real bucket: what one replica pulled, another serves, also with the upstream away; and a
// bucket that cannot be reached keeps nobody from pulling.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, suite, test } from 'node:test';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import { type Digest, hexOf } from '../../oci/digest.ts';
import { type Image, makeImage, noise } from '../support/image.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { type RunningWeir, startWeir, weir } from '../support/weir-command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ACCESS_KEY, BUCKET, type S3Server, SECRET_KEY, startS3Server } from './s3-server.ts';

suite('weir registry over a bucket', () => {
  let scratch: string;
  let server: S3Server;
  let upstream: UpstreamRegistry;
  let image: Image;
  let store: string;
  let running: RunningWeir[];

  before(async () => {
    scratch = await makeScratch();
    server = await startS3Server('minio', { scratch });
    image = await makeImage([{ small: 'x' }, { big: noise(20_000_000) }]);
    const credentials = join(scratch, 'credentials');
    await mkdir(credentials);
    await writeFile(join(credentials, 'AWS_ACCESS_KEY_ID'), ACCESS_KEY);
    await writeFile(join(credentials, 'AWS_SECRET_ACCESS_KEY'), SECRET_KEY);
  });
  after(async () => {
    await server.stop();
    await removeScratch(scratch);
  });
  beforeEach(async (t) => {
    running = [];
    upstream = await UpstreamRegistry.start();
    upstream.push('library/app', 'v1', image);
    await writeFile(
      join(scratch, 'config.yaml'),
      `upstreams: { docker.io: { endpoint: "${upstream.url}" } }`,
    );
    // A prefix for each test, so that none finds what another one stored.
    store = storeAt(server.endpoint, t.name);
  });
  afterEach(async () => {
    for (const one of running) await one.stop();
    await upstream.stop();
  });

  const storeAt = (endpoint: string, name: string): string => {
    const prefix = name.replaceAll(/[^a-z]+/g, '-');
    return `s3://${BUCKET}/${prefix}?endpoint=${endpoint}&pathStyle=true&credentials=${scratch}/credentials`;
  };
  const replica = async (over = store): Promise<RunningWeir> => {
    const listen = ['--listen', '127.0.0.1:0', '--store', over];
    const one = await startWeir('registry', '--config', join(scratch, 'config.yaml'), ...listen);
    running.push(one);
    return one;
  };

  test('serves from one replica what another has pulled, with the upstream away', async () => {
    const first = await replica();
    await assertPulls(first, image);
    // Its last writes to the bucket end before it does.
    assert.equal(await first.stop(), 0);
    await upstream.stop();
    await assertPulls(await replica(), image);
    await upstream.resume();
    assert.equal(upstream.count('GET', image.blobs[2]?.digest ?? ''), 1);
  });

  /** Puts other bytes of the same number under the key of the image's largest blob. */
  const overwrite = async (Metadata?: Record<string, string>): Promise<Digest> => {
    const { digest, bytes } = image.blobs[2] ?? assert.fail();
    const hex = hexOf(digest);
    const Key = `${new URL(store).pathname.slice(1)}/blobs/sha256/${hex.slice(0, 2)}/${hex}`;
    const Body = noise(bytes.length, 42);
    await server.client.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body, Metadata }));
    return digest;
  };

  test('fetches again what somebody has overwritten in the bucket', async () => {
    const first = await replica();
    await assertPulls(first, image);
    const digest = await overwrite();
    await assertPulls(first, image);
    assert.equal(upstream.count('GET', digest), 2);
    await first.stop();
    const report = await weir('registry', 'scrub', '--store', store);
    assert.match(report.stdout, /; 0 are damaged\n$/);
  });

  test('finds and mends by a scrub what is not what it says that it is', async () => {
    const first = await replica();
    await assertPulls(first, image);
    await first.stop();
    const digest = await overwrite({ 'weir-digest': image.blobs[2]?.digest ?? '' });
    const report = await weir('registry', 'scrub', '--store', store);
    assert.equal(report.code, 0);
    assert.match(report.stdout, new RegExp(`^removed ${digest}: .*\\n4 blobs with .*; 1 are damaged\\n$`));
    await assertPulls(await replica(), image);
    assert.equal(upstream.count('GET', digest), 2);
  });

  test('pulls without a bucket that cannot be reached, and says so', async () => {
    const one = await replica(storeAt('http://127.0.0.1:1', 'away'));
    await assertPulls(one, image);
    const ready = await fetch(`${one.url}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /s3:\/\/images\/.*127\.0\.0\.1:1/);
    assert.match(await (await fetch(`${one.url}/metrics`)).text(), /^weir_store_up 0$/m);
  });

  test('ends with one line for a bucket that is not there', async () => {
    const config = join(scratch, 'config.yaml');
    const other = store.replace(`s3://${BUCKET}/`, 's3://nowhere/');
    const { code, stderr } = await weir(
      'registry',
      '--config',
      config,
      '--listen',
      '127.0.0.1:0',
      '--store',
      other,
    );
    assert.equal(code, 1);
    assert.match(stderr, /^weir: .*nowhere.*\n$/);
  });
});

async function assertPulls({ url }: RunningWeir, image: Image): Promise<void> {
  for (const [path, bytes] of [
    ['manifests/v1', image.manifest.bytes],
    [`manifests/${image.manifest.digest}`, image.manifest.bytes],
    ...image.blobs.map((blob) => [`blobs/${blob.digest}`, blob.bytes] as const),
  ] as const) {
    const answer = await fetch(`${url}/v2/library/app/${path}`);
    assert.equal(answer.status, 200, path);
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes), path);
  }
}
