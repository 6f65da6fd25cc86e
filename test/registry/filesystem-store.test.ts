import assert from 'node:assert/strict';
import { mkdir, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { digestOf } from '../../oci/digest.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { temporaryDirectory } from '../support/mirror.ts';
import { storeContract } from './store-contract.ts';

const contractDirectory = await temporaryDirectory();
after(() => rm(contractDirectory, { recursive: true, force: true }));
storeContract('the filesystem store', () => FilesystemStore.open(contractDirectory));

suite('the filesystem store', () => {
  let directory: string;
  before(async () => {
    directory = await temporaryDirectory();
  });
  after(() => rm(directory, { recursive: true, force: true }));

  test('removes what a killed process left, and leaves what another one is writing', async () => {
    await mkdir(join(directory, 'tmp'), { recursive: true });
    await writeFile(join(directory, 'tmp', 'old.spool'), 'x');
    await utimes(join(directory, 'tmp', 'old.spool'), 0, 0);
    await writeFile(join(directory, 'tmp', 'new.spool'), 'x');
    await FilesystemStore.open(directory);
    assert.deepEqual(await readdir(join(directory, 'tmp')), ['new.spool']);
  });

  test('refuses a directory of a later layout, and leaves it alone', async () => {
    const other = join(directory, 'other');
    await mkdir(other);
    await writeFile(join(other, 'weir-store.json'), '{"layout":"weir-filesystem-store","version":99}');
    await assert.rejects(FilesystemStore.open(other), (error: Error) =>
      /later version/.test(String(error.cause)),
    );
  });

  test('takes a damaged record for none, so that it is made anew', async () => {
    const store = await FilesystemStore.open(directory);
    const key = { host: 'ghcr.io', repository: 'a/b' };
    await store.putTag(key, 'v1', { digest: digestOf('x'), checkedAt: 1 });
    await writeFile(
      join(directory, 'repositories/ghcr.io/a/b/_tags/v1'),
      '{"digest":"sha256:../../etc","checked',
    );
    assert.equal(await store.tag(key, 'v1'), undefined);
  });

  test('a failure is thrown, never told as an absence', async () => {
    const store = await FilesystemStore.open(directory);
    const key = { host: 'ghcr.io', repository: 'c' };
    await mkdir(join(directory, 'repositories/ghcr.io/c/_tags/v1'), { recursive: true });
    await assert.rejects(store.tag(key, 'v1'), /EISDIR/);
  });
});
