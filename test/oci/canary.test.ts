import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { extract } from 'tar-stream';
import { canaryOf, parseCanary } from '../../oci/canary.ts';
import { digestOf } from '../../oci/digest.ts';
import { parseReference } from '../../oci/reference.ts';

const NONCE = '0123456789abcdef0123456789abcdef';

test('an image is the same in every version of weir, for agents and registries are upgraded one by one', () => {
  const { reference, manifest, config, layer } = canaryOf({ architecture: 'amd64', nonce: NONCE });
  assert.equal(reference, `canary.weir.internal/amd64/${NONCE}:proof`);
  assert.equal(manifest.digest, 'sha256:caad57e9ba69d755429bf91ad2837a17ec0f5d046ae7267252bde43019d894e8');
  assert.equal(config.digest, 'sha256:2a8a2754bd1b48a39e8bf8f8996f8554a08c0c9b436782d7e780191b22d0d325');
  assert.equal(layer.digest, 'sha256:b8031cd1ffbc0e2d7c8726c038a2470b99f01fcda215e8b81d7795d355b78bec');
});

test('another nonce and another architecture are other images', () => {
  const images = [
    canaryOf({ architecture: 'amd64', nonce: NONCE }),
    canaryOf({ architecture: 'amd64', nonce: NONCE.replace('0', '1') }),
    canaryOf({ architecture: 'arm64', nonce: NONCE }),
  ];
  assert.equal(new Set(images.map(({ manifest }) => manifest.digest)).size, 3);
  assert.equal(new Set(images.map(({ config }) => config.digest)).size, 3);
});

test('its parts lead to each other, and its layer is an archive', async () => {
  const { manifest, config, layer } = canaryOf({ architecture: 'arm64', nonce: NONCE });
  const descriptorOf = ({ mediaType, digest, bytes }: typeof manifest) => ({
    mediaType,
    digest,
    size: bytes.length,
  });
  for (const { digest, bytes } of [manifest, config, layer]) assert.equal(digest, digestOf(bytes));
  assert.deepEqual(JSON.parse(manifest.bytes.toString()), {
    schemaVersion: 2,
    mediaType: manifest.mediaType,
    config: descriptorOf(config),
    layers: [descriptorOf(layer)],
  });
  assert.deepEqual(JSON.parse(config.bytes.toString()), {
    architecture: 'arm64',
    os: 'linux',
    config: { Labels: { 'dev.weir.canary': NONCE } },
    rootfs: { type: 'layers', diff_ids: [layer.digest] },
  });
  const files: string[] = [];
  for await (const entry of Readable.from([layer.bytes]).pipe(extract())) {
    const { name, mode, uid, gid, type } = entry.header;
    files.push(`${type} ${name} ${mode?.toString(8)} ${uid}:${gid} ${await text(entry)}`);
  }
  assert.deepEqual(files, [`file nonce 444 0:0 ${NONCE}\n`]);
});

test('a repository is read back as the name that it was made of, and no other is read', () => {
  const name = { architecture: 'riscv64', nonce: NONCE };
  const { repository, reference } = canaryOf(name);
  assert.deepEqual(parseCanary(repository), name);
  assert.equal(parseReference(reference).repository, repository);
  for (const other of [
    '',
    NONCE,
    `amd64/${NONCE}0`,
    `amd64/${NONCE.slice(1)}`,
    `amd64/${NONCE.toUpperCase()}`,
    `AMD64/${NONCE}`,
    `/${NONCE}`,
    `${'a'.repeat(17)}/${NONCE}`,
    `library/amd64/${NONCE}`,
    `amd64/${NONCE}/x`,
    `amd64/${NONCE}\n`,
  ])
    assert.equal(parseCanary(other), undefined, other);
});
