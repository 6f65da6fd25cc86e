import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { type CanaryContent, canaryOf } from '../../oci/canary.ts';
import { digestOf } from '../../oci/digest.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';

const CANARY = canaryOf({ architecture: 'amd64', nonce: 'f'.repeat(32) });
const { repository, manifest, config, layer } = CANARY;
const NS = '?ns=canary.weir.internal';

suite('a canary', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;

  before(async () => {
    upstream = await UpstreamRegistry.start();
    // Whoever writes the canary's host into the configuration gets neither it nor its pulls.
    mirror = await startMirror(`
enabled: false
upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
  });
  after(async () => {
    await mirror.close();
    await upstream.stop();
  });

  const ask = (path: string, init: RequestInit = {}) => fetch(`${mirror.url}/v2/${path}`, init);

  test('is answered from its name alone, with no upstream asked and nothing stored', async () => {
    const parts: readonly (readonly [path: string, part: CanaryContent, type: string])[] = [
      ['manifests/proof', manifest, manifest.mediaType],
      [`manifests/${manifest.digest}`, manifest, manifest.mediaType],
      [`blobs/${config.digest}`, config, 'application/octet-stream'],
      [`blobs/${layer.digest}`, layer, 'application/octet-stream'],
      [`blobs/${encodeURIComponent(layer.digest)}`, layer, 'application/octet-stream'],
    ];
    for (const [path, part, type] of parts) {
      for (const method of ['HEAD', 'GET']) {
        const answer = await ask(`${repository}/${path}${NS}`, { method });
        assert.equal(answer.status, 200, `${method} ${path}`);
        assert.equal(answer.headers.get('docker-content-digest'), part.digest);
        assert.equal(answer.headers.get('content-length'), String(part.bytes.length));
        assert.equal(answer.headers.get('content-type'), type);
        assert.equal(answer.headers.get('cache-status'), 'weir; hit');
        assert.equal(answer.headers.get('oci-namespace'), 'canary.weir.internal');
        const bytes = await bytesOf(answer);
        if (method === 'GET') assert.equal(digestOf(bytes), part.digest);
        else assert.equal(bytes.length, 0);
      }
    }
    assert.deepEqual(upstream.seen, []);
    const stored = await readdir(join(mirror.directory, 'store'), { recursive: true, withFileTypes: true });
    assert.deepEqual(
      stored.filter((entry) => entry.isFile()).map(({ name }) => name),
      ['weir-store.json'],
    );
  });

  test('is answered in the range that is asked for', async () => {
    const answer = await ask(`${repository}/blobs/${layer.digest}${NS}`, {
      headers: { range: 'bytes=512-543' },
    });
    assert.equal(answer.status, 206);
    assert.equal(answer.headers.get('content-range'), 'bytes 512-543/2048');
    assert.equal(String(await bytesOf(answer)), 'f'.repeat(32));
  });

  for (const [path, status] of [
    [`${repository}/manifests/latest${NS}`, 404],
    [`${repository}/manifests/${layer.digest}${NS}`, 404],
    [`${repository}/blobs/${manifest.digest}${NS}`, 404],
    [`${repository}/blobs/sha256:${'0'.repeat(64)}${NS}`, 404],
    [`${repository}/referrers/${manifest.digest}${NS}`, 404],
    [`${repository}0/manifests/proof${NS}`, 404],
    [`library/nginx/manifests/latest${NS}`, 404],
    [`nginx/manifests/latest${NS}`, 404],
  ] as const)
    test(`/v2/${path} is no part of one: ${status}, and no upstream is asked`, async () => {
      const answer = await ask(path);
      assert.equal(answer.status, status);
      await answer.arrayBuffer();
      assert.deepEqual(upstream.seen, []);
    });

  test('is never answered by its path', async () => {
    for (const path of [
      `${repository}/manifests/proof`,
      `${repository}/manifests/proof?ns=docker.io`,
      `${repository}/manifests/proof?ns=docker.io&and=canary.weir.internal`,
      `${repository}/manifests/proof?ns=canary.weir.internal.example`,
      `canary.weir.internal/${repository}/manifests/proof?ns=docker.io`,
    ]) {
      const answer = await ask(path);
      assert.equal(answer.status, 404, path);
      await answer.arrayBuffer();
    }
    assert.equal(upstream.seen.length > 0, true, 'docker.io was asked for what may be an image there');
  });

  test('is counted apart from pulls', async () => {
    const counted = (await mirror.metrics.getSingleMetric('weir_registry_requests_total')?.get())?.values;
    const canaries = counted?.filter(({ labels }) => labels['kind'] === 'canary') ?? [];
    assert.deepEqual(
      canaries.map(({ labels, value }) => [labels['status'], value]),
      [
        ['200', 10],
        ['206', 1],
      ],
    );
  });
});

async function bytesOf(answer: Response): Promise<Buffer> {
  return Buffer.from(await answer.arrayBuffer());
}
