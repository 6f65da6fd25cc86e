import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, suite, test } from 'node:test';
import {
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import { digestOf } from '../../oci/digest.ts';
import type { S3Store } from '../../registry/s3-store.ts';
import { noise } from '../support/image.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { openS3Store, readBlob } from './opened-store.ts';
import { type S3Proxy, startS3Proxy } from './s3-proxy.ts';
import { BUCKET, type S3Server, startS3Server } from './s3-server.ts';
import { s3ServerNames } from './s3-server-tools.ts';

const MIB = 1024 * 1024;
const count = (seen: readonly string[], operation: string) => seen.filter((one) => one === operation).length;

for (const name of s3ServerNames)
  suite(`the S3 store on ${name} carries large blobs:`, () => {
    let scratch: string;
    let server: S3Server;
    let proxy: S3Proxy;
    let store: S3Store;

    before(async () => {
      scratch = await makeScratch();
      server = await startS3Server(name, { scratch });
      proxy = await startS3Proxy(server.endpoint);
      store = await openS3Store({ scratch, endpoint: proxy.endpoint });
    });
    beforeEach(() => {
      proxy.fault = undefined;
      proxy.seen.length = 0;
    });
    after(async () => {
      await proxy.close();
      await server.stop();
      await removeScratch(scratch);
    });

    const spool = async (bytes: Buffer) => {
      const path = join(scratch, digestOf(bytes).slice(-12));
      await writeFile(path, bytes);
      return path;
    };
    // MinIO lists uploads only without a prefix, or for one whole key.
    const uploads = async () =>
      (await server.client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))).Uploads ?? [];

    test('40 MB go up in parts, and come back whole and by ranges', async () => {
      const bytes = noise(40 * MIB + 5, 40);
      const digest = digestOf(bytes);
      await store.putFile(digest, await spool(bytes));
      assert.equal(count(proxy.seen, 'UploadPart'), 6);
      assert.equal(count(proxy.seen, 'PutObject'), 0);
      assert.deepEqual(await store.stat(digest), { size: bytes.length });
      assert.ok((await readBlob(store, digest))?.equals(bytes));
      const ranges = [
        { asked: { first: 5 * MIB }, start: 5 * MIB, end: bytes.length - 1 },
        { asked: { first: 8 * MIB - 1, last: 8 * MIB + 1 }, start: 8 * MIB - 1, end: 8 * MIB + 1 },
        { asked: { suffix: 7 }, start: bytes.length - 7, end: bytes.length - 1 },
        { asked: { first: 1 }, start: 100, end: 200 },
        { start: 0, end: 9 },
      ];
      for (const { start, end, asked } of ranges) {
        const read = await readBlob(store, digest, { range: { start, end }, ...(asked && { asked }) });
        assert.ok(read?.equals(bytes.subarray(start, end + 1)));
      }
      assert.deepEqual(await uploads(), []);
    });

    test('an upload of which a part fails is aborted, and nothing is to be seen', async () => {
      const bytes = noise(20 * MIB, 41);
      const digest = digestOf(bytes);
      let parts = 0;
      proxy.fault = (operation) =>
        operation === 'UploadPart' && ++parts > 1 ? { status: 403, code: 'AccessDenied' } : undefined;
      await assert.rejects(store.putFile(digest, await spool(bytes)), /cannot write s3:.*access is denied/);
      assert.equal(count(proxy.seen, 'AbortMultipartUpload'), 1);
      assert.equal(count(proxy.seen, 'CompleteMultipartUpload'), 0);
      proxy.fault = undefined;
      assert.equal(await store.stat(digest), undefined);
      assert.deepEqual(await uploads(), []);
    });

    test('a part that fails once is sent again', async () => {
      const bytes = noise(20 * MIB, 42);
      const digest = digestOf(bytes);
      let parts = 0;
      proxy.fault = (operation) =>
        operation === 'UploadPart' && ++parts === 2 ? { status: 503, code: 'SlowDown' } : undefined;
      await store.putFile(digest, await spool(bytes));
      assert.equal(parts, 4);
      assert.ok((await readBlob(store, digest))?.equals(bytes));
    });

    test('a part that is acknowledged and lost makes no object, and the blob can be stored again', async () => {
      const bytes = noise(20 * MIB, 48);
      const digest = digestOf(bytes);
      const path = await spool(bytes);
      let parts = 0;
      proxy.fault = (operation) =>
        operation === 'UploadPart' && ++parts === 2 ? { lostAs: `"${'0'.repeat(32)}"` } : undefined;
      await assert.rejects(store.putFile(digest, path), /^S3Failure: cannot write .*: /);
      assert.equal(await store.stat(digest), undefined);
      assert.deepEqual(await uploads(), []);
      await store.putFile(digest, path);
      assert.ok((await readBlob(store, digest))?.equals(bytes));
    });

    test('a store that is ended aborts what it uploads', async () => {
      const bytes = noise(20 * MIB, 47);
      const end = new AbortController();
      const ending = await openS3Store({ scratch, endpoint: proxy.endpoint, signal: end.signal });
      proxy.fault = (operation) => {
        if (operation === 'UploadPart') end.abort(new Error('the program ends'));
        return undefined;
      };
      await assert.rejects(ending.putFile(digestOf(bytes), await spool(bytes)));
      assert.equal(count(proxy.seen, 'AbortMultipartUpload'), 1);
      assert.deepEqual(await uploads(), []);
      await assert.rejects(ending.stat(digestOf(bytes)), /the program ends/);
    });

    test('two replicas that store the same blob at once both succeed', async () => {
      const bytes = noise(20 * MIB, 43);
      const digest = digestOf(bytes);
      const path = await spool(bytes);
      const other = await openS3Store({ scratch, endpoint: server.endpoint });
      await Promise.all([
        store.putFile(digest, path),
        other.putFile(digest, path),
        store.putFile(digest, path),
      ]);
      assert.ok((await readBlob(store, digest))?.equals(bytes));
      assert.deepEqual(await uploads(), []);
    });

    test('what is there already costs one look, and is not sent again', async () => {
      const bytes = noise(100_000, 44);
      const digest = digestOf(bytes);
      await store.put(digest, bytes);
      proxy.seen.length = 0;
      await store.put(digest, bytes);
      await store.putFile(digest, await spool(bytes));
      assert.deepEqual(proxy.seen, ['HeadObject', 'HeadObject']);
    });

    test('an empty blob is one as well', async () => {
      const digest = digestOf('');
      await store.putFile(digest, await spool(Buffer.alloc(0)));
      assert.deepEqual(await store.stat(digest), { size: 0 });
      const blob = await store.open(digest, { first: 0 });
      assert.equal(blob?.size, 0);
      await blob?.close();
    });

    test('a body that breaks off goes on from where it broke', async () => {
      const bytes = noise(3 * MIB, 45);
      const digest = digestOf(bytes);
      await store.put(digest, bytes);
      proxy.seen.length = 0;
      let left = 2;
      proxy.fault = () => (left-- > 0 ? { cutAfter: MIB } : undefined);
      assert.ok((await readBlob(store, digest))?.equals(bytes));
      assert.deepEqual(proxy.seen, ['GetObject', 'GetObject', 'GetObject']);
    });

    test('a body that never gets on is given up', async () => {
      const bytes = noise(MIB, 46);
      const digest = digestOf(bytes);
      await store.put(digest, bytes);
      const blob = await store.open(digest);
      assert.ok(blob);
      proxy.fault = () => ({ cutAfter: 0 });
      const copying = blob.copyTo(async () => undefined, { start: 5, end: 9 }, new AbortController().signal);
      await assert.rejects(copying, /broke off at byte 5/);
      await blob.close();
    });

    test('uploads that a killed process left are aborted, those of others are not', async () => {
      const keys = ['weir/blobs/sha256/aa/left', 'weir/other-tool', 'weir2/blobs/sha256/aa/x', 'backup/a'];
      for (const Key of keys)
        await server.client.send(new CreateMultipartUploadCommand({ Bucket: BUCKET, Key }));
      assert.equal(await store.sweep(new Date(Date.now() - 3_600_000)), 0, 'those that may go on are left');
      assert.equal(await store.sweep(new Date(Date.now() + 3_600_000)), 1);
      const left = (await uploads()).map(({ Key = '' }) => Key).toSorted();
      assert.deepEqual(left, keys.slice(1).toSorted());
    });

    test('objects of others in the bucket stay as they are', async () => {
      const theirs = ['backup/dump', 'weir-notes', 'weir/readme.txt'];
      for (const Key of theirs)
        await server.client.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body: `of ${Key}` }));
      const again = await openS3Store({ scratch, endpoint: server.endpoint });
      await again.put(digestOf('mine'), Buffer.from('mine'));
      await again.sweep(new Date());
      for (const Key of theirs) {
        const found = await server.client.send(new GetObjectCommand({ Bucket: BUCKET, Key }));
        assert.equal(await found.Body?.transformToString(), `of ${Key}`);
      }
    });
  });
