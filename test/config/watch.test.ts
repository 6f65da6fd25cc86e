import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import type { ConfigVersion } from '../../config/version.ts';
import { ConfigFile, readConfigFile } from '../../config/watch.ts';

suite('a configuration file', () => {
  let directory: string;
  let opened: ConfigFile | undefined;
  let next: PromiseWithResolvers<ConfigVersion | Error>;

  /** Opens the file; what happens to it resolves {@link happened}. */
  async function open(path: string): Promise<ConfigFile> {
    next = Promise.withResolvers();
    const watched = ConfigFile.watch(path, await readConfigFile(path), {
      changed: (version) => next.resolve(version),
      refused: (error) => next.resolve(error),
    });
    opened = watched;
    return watched;
  }

  async function happened(): Promise<ConfigVersion | Error> {
    const what = await next.promise;
    next = Promise.withResolvers();
    return what;
  }

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-config-'));
  });
  afterEach(async () => {
    await opened?.close();
    await rm(directory, { recursive: true, force: true });
  });

  test('is read again when it is written in place, and when another file is moved over it', async () => {
    const path = join(directory, 'config.yaml');
    await writeFile(path, 'upstreams: { ghcr.io: {} }');
    const file = await open(path);
    await writeFile(path, 'upstreams: { quay.io: {} }');
    await happened();
    assert.deepEqual([...file.version.config.upstreams.keys()], ['quay.io']);

    await writeFile(join(directory, 'new'), 'upstreams: { gcr.io: {} }');
    await rename(join(directory, 'new'), path);
    await happened();
    assert.deepEqual([...file.version.config.upstreams.keys()], ['gcr.io']);
  });

  test("is read again when a ConfigMap mount swaps its '..data' link", async () => {
    const write = async (version: string, text: string): Promise<void> => {
      await mkdir(join(directory, version));
      await writeFile(join(directory, version, 'config.yaml'), text);
      await symlink(version, join(directory, '..data_tmp'));
      await rename(join(directory, '..data_tmp'), join(directory, '..data'));
    };
    await write('..v1', 'upstreams: { ghcr.io: {} }');
    await symlink('..data/config.yaml', join(directory, 'config.yaml'));
    const file = await open(join(directory, 'config.yaml'));
    await write('..v2', 'upstreams: { quay.io: {} }');
    await rm(join(directory, '..v1'), { recursive: true });
    await happened();
    assert.deepEqual([...file.version.config.upstreams.keys()], ['quay.io']);
  });

  test('keeps the last good configuration through an edit that cannot be read, and takes the next good one', async () => {
    const path = join(directory, 'config.yaml');
    await writeFile(path, 'upstreams: { ghcr.io: {} }');
    const file = await open(path);
    for (const bad of ['upstreams: { ghcr.io: { mirrr: x } }', Buffer.from([0xff, 0xfe, 0x00])]) {
      await writeFile(path, bad);
      assert.ok((await happened()) instanceof Error);
      assert.match(file.refusal ?? '', /./);
      assert.deepEqual([...file.version.config.upstreams.keys()], ['ghcr.io']);
    }
    await rm(path);
    const gone = await happened();
    assert.ok(gone instanceof Error && gone.message.startsWith('cannot read'));
    await writeFile(path, 'upstreams: { nvcr.io: {} }');
    await happened();
    assert.equal(file.refusal, undefined);
    assert.deepEqual([...file.version.config.upstreams.keys()], ['nvcr.io']);
  });
});
