import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { digestOf } from '../../oci/digest.ts';
import type { Store, StoredBlob } from '../../registry/store.ts';
import { noise } from '../support/image.ts';

const KEY = { host: 'harbor.corp:8443', repository: 'team/app' };

/** What every store does, whatever it keeps its content in. `open` gives the same store again when called again. */
export function storeContract(name: string, open: () => Promise<Store>): void {
  suite(`${name} keeps the contract of a store:`, () => {
    let store: Store;
    let directory: string;
    before(async () => {
      store = await open();
      directory = await mkdtemp(join(tmpdir(), 'weir-contract-'));
    });
    after(() => rm(directory, { recursive: true, force: true }));

    test('what was never stored is absent, not a failure', async () => {
      const digest = digestOf('never');
      assert.equal(await store.stat(digest), undefined);
      assert.equal(await store.open(digest), undefined);
      assert.equal(await store.link(KEY, digest), undefined);
      assert.equal(await store.tag(KEY, 'never'), undefined);
      assert.equal(await store.referrers(KEY, digest), undefined);
    });

    test('bytes come back as they were, in whole and in part', async () => {
      const bytes = noise(3_000_001);
      const digest = digestOf(bytes, 'sha512');
      await store.put(digest, bytes);
      assert.deepEqual(await store.stat(digest), { size: bytes.length });
      for (const [start, end] of [
        [0, bytes.length - 1],
        [0, 0],
        [1_000_000, 2_000_000],
        [bytes.length - 1, bytes.length - 1],
      ] as const)
        assert.ok((await read(await store.open(digest), start, end)).equals(bytes.subarray(start, end + 1)));
    });

    test('a file is taken in and stays the caller’s', async () => {
      const bytes = noise(100_000, 7);
      const digest = digestOf(bytes);
      const path = join(directory, 'spool');
      await writeFile(path, bytes);
      await store.putFile(digest, path);
      await store.putFile(digest, path);
      await rm(path);
      assert.ok((await read(await store.open(digest), 0, bytes.length - 1)).equals(bytes));
    });

    test('storing the same twice, also at once, is harmless', async () => {
      const bytes = noise(10_000, 9);
      const digest = digestOf(bytes);
      await Promise.all([store.put(digest, bytes), store.put(digest, bytes), store.put(digest, bytes)]);
      assert.deepEqual(await store.stat(digest), { size: bytes.length });
    });

    test('a link holds for its repository alone', async () => {
      const digest = digestOf('linked');
      await store.putLink(KEY, digest, { mediaType: 'application/vnd.oci.image.index.v1+json' });
      assert.deepEqual(await store.link(KEY, digest), {
        mediaType: 'application/vnd.oci.image.index.v1+json',
      });
      for (const other of [
        { ...KEY, repository: 'team' },
        { ...KEY, repository: 'team/app/more' },
        { ...KEY, host: 'ghcr.io' },
      ])
        assert.equal(await store.link(other, digest), undefined);
      await store.putLink(KEY, digestOf('blob'), {});
      assert.deepEqual(await store.link(KEY, digestOf('blob')), {});
    });

    test('a tag is replaced, and known to a store that is opened anew', async () => {
      const [first, second] = [digestOf('first'), digestOf('second')];
      await store.putTag(KEY, 'v1', { digest: first, checkedAt: 1 });
      await store.putTag(KEY, 'v1', { digest: second, checkedAt: 2 });
      assert.deepEqual(await (await open()).tag(KEY, 'v1'), { digest: second, checkedAt: 2 });
    });

    test('what is said about referrers is replaced, holds for its repository alone, and outlives the store', async () => {
      const subject = digestOf('subject', 'sha512');
      const list = digestOf('list');
      await store.putReferrers(KEY, subject, { checkedAt: 1 });
      assert.deepEqual(await store.referrers(KEY, subject), { checkedAt: 1 });
      await store.putReferrers(KEY, subject, { list, checkedAt: 2 });
      assert.deepEqual(await (await open()).referrers(KEY, subject), { list, checkedAt: 2 });
      assert.equal(await store.referrers({ ...KEY, repository: 'team' }, subject), undefined);
      assert.equal(await store.referrers({ ...KEY, host: 'ghcr.io' }, subject), undefined);
      assert.equal(await store.link(KEY, subject), undefined);
    });

    test('a tag and a blob that are removed are gone, and removing them again is harmless', async () => {
      const digest = digestOf('to be removed');
      await store.put(digest, Buffer.from('to be removed'));
      await store.putTag(KEY, 'gone', { digest, checkedAt: 1 });
      for (let round = 0; round < 2; round++) {
        await store.remove(digest);
        await store.removeTag(KEY, 'gone');
        assert.equal(await store.stat(digest), undefined);
        assert.equal(await store.tag(KEY, 'gone'), undefined);
      }
    });

    test('every blob is listed, and nothing else', async () => {
      const digest = digestOf('listed');
      await store.put(digest, Buffer.from('listed'));
      const listed = await Array.fromAsync(store.digests());
      assert.ok(listed.includes(digest));
      for (const one of listed) assert.notEqual(await store.stat(one), undefined);
    });

    test('a reader that is aborted stops', async () => {
      const bytes = noise(2_000_000, 3);
      const digest = digestOf(bytes);
      await store.put(digest, bytes);
      const blob = await store.open(digest);
      assert.ok(blob);
      const stop = new AbortController();
      const copying = blob.copyTo(
        async () => stop.abort(new Error('gone')),
        { start: 0, end: bytes.length - 1 },
        stop.signal,
      );
      await assert.rejects(copying, /gone/);
      await blob.close();
    });
  });
}

async function read(blob: StoredBlob | undefined, start: number, end: number): Promise<Buffer> {
  assert.ok(blob);
  const chunks: Buffer[] = [];
  await blob.copyTo(
    async (chunk) => void chunks.push(Buffer.from(chunk)),
    { start, end },
    new AbortController().signal,
  );
  await blob.close();
  return Buffer.concat(chunks);
}
