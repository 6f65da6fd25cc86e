import assert from 'node:assert/strict';
import { test } from 'node:test';
import { algorithmOf, digestOf, hexOf, parseDigest } from '../../oci/digest.ts';
import { manifestType } from '../../oci/manifest.ts';

test('digests of the registered algorithms are read, everything else is not', () => {
  const sha256 = `sha256:${'0123456789abcdef'.repeat(4)}`;
  const sha512 = `sha512:${'0123456789abcdef'.repeat(8)}`;
  assert.equal(parseDigest(sha256), sha256);
  assert.equal(parseDigest(sha512), sha512);
  for (const text of [
    '',
    'sha256:',
    sha256.toUpperCase(),
    `${sha256}0`,
    sha256.slice(0, -1),
    `md5:${'0'.repeat(32)}`,
    `${sha256}:x`,
    sha512.replace('512', '256'),
  ])
    assert.equal(parseDigest(text), undefined, text);
});

test('a digest knows its algorithm and digits', () => {
  const digest = digestOf('hello', 'sha512');
  assert.equal(algorithmOf(digest), 'sha512');
  assert.equal(hexOf(digest).length, 128);
  assert.equal(digestOf('hello'), 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
});

test("a manifest's type is the one that was told, or its own where none was", () => {
  const manifest = Buffer.from('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}');
  assert.equal(
    manifestType(manifest, 'application/vnd.docker.distribution.manifest.list.v2+json'),
    'application/vnd.docker.distribution.manifest.list.v2+json',
  );
  assert.equal(
    manifestType(manifest, 'application/json; charset=utf-8'),
    'application/vnd.oci.image.index.v1+json',
  );
  assert.equal(
    manifestType(Buffer.from('{"schemaVersion":2}'), undefined),
    'application/vnd.oci.image.manifest.v1+json',
  );
});

test('what is no manifest is not taken for one', () => {
  for (const [text, type] of [
    ['<html>log in</html>', 'text/html'],
    ['<html>log in</html>', 'application/vnd.oci.image.manifest.v1+json'],
    ['{"errors":[]}', 'application/json'],
    ['[]', 'application/json'],
    ['{"schemaVersion":2}', 'text/html'],
    ['', undefined],
  ] as const)
    assert.throws(() => manifestType(Buffer.from(text), type), /is no (manifest|type of a manifest)$/);
});
