import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { digestOf } from '../../oci/digest.ts';
import type { S3Store } from '../../registry/s3-store.ts';
import { noise } from '../support/image.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { openS3Store, readBlob } from './opened-store.ts';
import { type S3Proxy, startS3Proxy } from './s3-proxy.ts';
import { type S3Server, startS3Server } from './s3-server.ts';
import { s3ServerNames } from './s3-server-tools.ts';

const KEY = { host: 'harbor.corp:8443', repository: 'team/app' };

for (const name of s3ServerNames)
  suite(`what the S3 store asks ${name} for:`, () => {
    let scratch: string;
    let server: S3Server;
    let proxy: S3Proxy;
    let store: S3Store;
    const bytes = noise(300_000);
    const digest = digestOf(bytes);

    before(async () => {
      scratch = await makeScratch();
      server = await startS3Server(name, { scratch });
      proxy = await startS3Proxy(server.endpoint);
      store = await openS3Store({ scratch, endpoint: proxy.endpoint });
      await store.put(digest, bytes);
      await store.putLink(KEY, digest, { mediaType: 'application/vnd.oci.image.manifest.v1+json' });
      await store.putTag(KEY, 'v1', { digest, checkedAt: 1, mediaType: 'application/json' });
      await store.putReferrers(KEY, digest, { list: digest, checkedAt: 1 });
      // Its sweep begins with the store; what is asked later is asked by a pull.
      await store.sweep(new Date(0));
    });
    after(async () => {
      await proxy.close();
      await server.stop();
      await removeScratch(scratch);
    });

    const asked = async (work: () => Promise<unknown>) => {
      proxy.seen.length = 0;
      await work();
      return [...proxy.seen];
    };

    test('one request for a whole blob, one for a range of it', async () => {
      assert.deepEqual(await asked(() => readBlob(store, digest)), ['GetObject']);
      for (const [wanted, range] of [
        [
          { first: 1000, last: 1999 },
          { start: 1000, end: 1999 },
        ],
        [{ first: 250_000 }, { start: 250_000, end: 299_999 }],
        [
          { first: 250_000, last: 999_999 },
          { start: 250_000, end: 299_999 },
        ],
        [{ suffix: 10 }, { start: 299_990, end: 299_999 }],
      ] as const) {
        const read = async () => assert.ok(await readBlob(store, digest, { asked: wanted, range }));
        assert.deepEqual(await asked(read), ['GetObject']);
      }
    });

    test('two for a range that nobody told when the blob was opened', async () => {
      const range = { start: 10, end: 19 };
      assert.deepEqual(await asked(() => readBlob(store, digest, { range })), ['GetObject', 'GetObject']);
    });

    test('a range outside of the blob still tells its size', async () => {
      const blob = await store.open(digest, { first: 300_000 });
      assert.equal(blob?.size, 300_000);
      await blob?.close();
    });

    test('one for a size, a link, a tag, and for what is not there', async () => {
      assert.deepEqual(await asked(() => store.stat(digest)), ['HeadObject']);
      assert.deepEqual(await asked(() => store.link(KEY, digest)), ['GetObject']);
      assert.deepEqual(await asked(() => store.tag(KEY, 'v1')), ['GetObject']);
      assert.deepEqual(await asked(() => store.referrers(KEY, digest)), ['GetObject']);
      assert.deepEqual(await asked(() => store.tag(KEY, 'v2')), ['GetObject']);
      assert.deepEqual(await asked(() => store.link(KEY, digestOf('no'))), ['GetObject']);
      assert.deepEqual(await asked(() => store.open(digestOf('no'))), ['GetObject']);
    });

    test('what refers to a manifest is known again, and so is that nothing does', async () => {
      assert.deepEqual(await store.referrers(KEY, digest), { list: digest, checkedAt: 1 });
      await store.putReferrers(KEY, digestOf('alone'), { checkedAt: 2 });
      assert.deepEqual(await store.referrers(KEY, digestOf('alone')), { checkedAt: 2 });
    });

    test('two for a manifest by its tag, whose record tells the media type', async () => {
      proxy.seen.length = 0;
      const record = await store.tag(KEY, 'v1');
      assert.equal(record?.mediaType, 'application/json');
      assert.ok((await readBlob(store, record.digest))?.equals(bytes));
      assert.deepEqual(proxy.seen, ['GetObject', 'GetObject']);
    });

    test('connections are used again', async () => {
      const ports = new Set<number | undefined>();
      const range = { start: 299_000, end: 299_999 };
      const asking = [
        () => readBlob(store, digest),
        () => readBlob(store, digest, { asked: { first: 299_000 }, range }),
        () => store.stat(digest),
        () => store.stat(digestOf('no')),
        () => store.open(digestOf('no')),
        () => store.tag(KEY, 'v1'),
        () => store.put(digest, bytes),
      ];
      for (const ask of [...asking, ...asking]) {
        await ask();
        ports.add(proxy.lastPort);
      }
      assert.equal(ports.size, 1);
    });
  });
