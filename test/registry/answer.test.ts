import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { makeImage } from '../support/image.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';

suite('a client that names what it has in If-None-Match', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  /** Paths below the repository, and the digest of what is there. */
  let paths: readonly (readonly [path: string, digest: string])[];

  before(async () => {
    const image = await makeImage([{ hello: 'world' }]);
    upstream = await UpstreamRegistry.start();
    upstream.push('library/app', 'v1', image);
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`);
    const { digest } = image.manifest;
    paths = [
      ['manifests/v1', digest],
      [`manifests/${digest}`, digest],
      ...image.blobs.map((blob) => [`blobs/${blob.digest}`, blob.digest] as const),
    ];
  });
  after(async () => {
    await mirror.close();
    await upstream.stop();
  });

  const ask = async (method: string, path: string, headers: Readonly<Record<string, string>>) => {
    const answer = await fetch(`${mirror.url}/v2/library/app/${path}`, { method, headers });
    return { answer, body: Buffer.from(await answer.arrayBuffer()) };
  };

  for (const method of ['GET', 'HEAD'])
    test(`is told by ${method} that it has it, cold and warm, whichever way it writes that`, async () => {
      for (const [path, digest] of paths)
        for (const tags of [`"${digest}"`, `"other", W/"${digest}"`, digest, '*']) {
          const { answer, body } = await ask(method, path, { 'if-none-match': tags });
          assert.equal(answer.status, 304, `${path} ${tags}`);
          assert.equal(answer.headers.get('etag'), `"${digest}"`);
          assert.equal(answer.headers.get('docker-content-digest'), digest);
          assert.equal(answer.headers.get('content-length'), null);
          assert.equal(body.length, 0);
        }
    });

  test('is told so before a range is looked at', async () => {
    const [path, digest] = paths.at(-1) ?? assert.fail();
    for (const range of ['bytes=0-0', 'bytes=99999999-']) {
      const { answer } = await ask('GET', path, { 'if-none-match': `"${digest}"`, range });
      assert.equal(answer.status, 304, range);
    }
  });

  test('gets the whole when it has something else', async () => {
    for (const [path, digest] of paths)
      for (const tags of [
        `"${paths.find(([, other]) => other !== digest)?.[1]}"`,
        `"${digest}x"`,
        '"*"',
        '',
      ]) {
        const { answer, body } = await ask('GET', path, { 'if-none-match': tags });
        assert.equal(answer.status, 200, `${path} ${tags}`);
        assert.equal(body.length, Number(answer.headers.get('content-length')));
        assert.equal((await ask('HEAD', path, { 'if-none-match': tags })).answer.status, 200);
      }
  });
});
