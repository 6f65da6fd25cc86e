import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { pino } from 'pino';
import { type OpenStore, openStore } from '../../cli/open-store.ts';
import { freePort } from '../containerd/port.ts';
import { temporaryDirectory } from '../support/mirror.ts';

const log = pino({ level: 'silent' });

suite('the spool of a store in a bucket', () => {
  const before = process.env['TMPDIR'];
  let directory: string;
  let location: string;
  beforeEach(async () => {
    directory = await temporaryDirectory();
    process.env['TMPDIR'] = directory;
    const credentials = await credentialsIn(directory);
    // A server that does not answer is no reason not to start.
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    location = `s3://images/?${new URLSearchParams({ endpoint, pathStyle: 'true', credentials }).toString()}`;
  });
  afterEach(async () => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    await rm(directory, { recursive: true, force: true });
  });

  const spoolOf = async (options: { mustExist?: boolean } = {}): Promise<string> => {
    await using cleanup = new AsyncDisposableStack();
    const opened: OpenStore = await openStore(location, { log, ...options });
    cleanup.defer(() => opened.close());
    return opened.spoolDirectory;
  };

  test('is the same at every start, so that what a killed process left is found', async () => {
    const first = await spoolOf();
    assert.ok((await stat(first)).isDirectory());
    assert.equal((await stat(first)).mode & 0o777, 0o700);
    assert.equal(await spoolOf(), first);
  });

  test('is not made for one that is only looked at', async () => {
    const names = await readdir(directory);
    await spoolOf({ mustExist: true });
    assert.deepEqual(await readdir(directory), names);
  });

  test('is not where somebody else has led it', async () => {
    const path = await spoolOf();
    await rename(path, `${path}-elsewhere`);
    await symlink(`${path}-elsewhere`, path);
    await assert.rejects(spoolOf(), /is not of the user that weir runs as; .* --spool-dir$/);
  });
});

async function credentialsIn(directory: string): Promise<string> {
  const path = join(directory, 'credentials');
  await mkdir(path);
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) await writeFile(join(path, name), 'x');
  return path;
}
