import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { pino } from 'pino';
import { applyOnce } from '../../agent/agent.ts';
import { resolveOnNode } from '../../agent/node-root.ts';
import { forgetPlace, rollback } from '../../agent/rollback.ts';
import type { Place } from '../../agent/state.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { configOf, MIRROR } from './node-files.ts';

/** The node's file system is mounted below a directory of the Pod, and its links lead where they lead on the node. */
suite('a node that is mounted below a root', () => {
  let root: string;
  let place: Place;

  afterEach(() => removeScratch(root));
  beforeEach(async () => {
    root = await makeScratch();
    place = {
      root,
      certsDir: '/etc/containerd/certs.d',
      stateDir: '/var/lib/weir',
      log: pino({ level: 'silent' }),
    };
    await mkdir(join(root, 'etc'), { recursive: true });
    await mkdir(join(root, 'opt/containerd/certs.d/quay.io'), { recursive: true });
    await symlink('/opt/containerd', join(root, 'etc/containerd'));
  });
  const certs = (path: string): string => join(root, 'opt/containerd/certs.d', path);
  const apply = (yaml: string) => applyOnce({ ...place, mirror: MIRROR, config: configOf(yaml) });

  test('has its links followed as it would follow them', async () => {
    await symlink('../../../../opt/containerd', join(root, 'etc/round'));
    await symlink('self', join(root, 'etc/self'));
    assert.equal(await resolveOnNode(root, '/etc/containerd/certs.d/new'), certs('new'));
    assert.equal(await resolveOnNode(root, '/etc/round/certs.d'), certs('').replace(/\/$/, ''));
    assert.equal(await resolveOnNode(root, '/../../etc/../nothing'), join(root, 'nothing'));
    await assert.rejects(resolveOnNode(root, '/etc/self'), /too many symbolic links/);
  });

  test('is written to and restored, with a file that was an absolute link', async () => {
    const theirs = 'server = "https://quay.io"\n[host."https://their.mirror"]\n';
    await writeFile(join(root, 'opt/quay.toml'), theirs);
    await symlink('/opt/quay.toml', certs('quay.io/hosts.toml'));
    await apply('upstreams: { quay.io: {}, ghcr.io: {} }');
    const merged = await readFile(certs('quay.io/hosts.toml'), 'utf8');
    assert.match(merged, /their\.mirror/);
    assert.match(merged, new RegExp(MIRROR));
    assert.match(await readFile(certs('ghcr.io/hosts.toml'), 'utf8'), new RegExp(MIRROR));

    await rollback(place);
    assert.equal(await readlink(certs('quay.io/hosts.toml')), '/opt/quay.toml');
    assert.equal(await readFile(join(root, 'opt/quay.toml'), 'utf8'), theirs);
    assert.deepEqual(await readdir(certs('')), ['quay.io']);
  });

  test('keeps what weir remembers under its own paths, and nothing of it in the end', async () => {
    await writeFile(
      certs('quay.io/hosts.toml'),
      'server = "https://quay.io"\n[host."https://their.mirror"]\n',
    );
    await apply('upstreams: { quay.io: {} }');
    const [folder = ''] = await readdir(join(root, 'var/lib/weir'));
    const state = await readFile(join(root, 'var/lib/weir', folder, 'state.json'), 'utf8');
    assert.match(state, /"certsDir": "\/opt\/containerd\/certs\.d"/);
    assert.ok(!state.includes(root));

    await writeFile(join(root, 'var/lib/weir/last-good-config.yaml'), '');
    await rollback(place);
    await forgetPlace(place, ['last-good-config.yaml']);
    assert.equal(existsSync(join(root, 'var/lib/weir')), false);
  });

  test('keeps an original that could not be brought back', async () => {
    await writeFile(
      certs('quay.io/hosts.toml'),
      'server = "https://quay.io"\n[host."https://their.mirror"]\n',
    );
    await apply('upstreams: { quay.io: {} }');
    await forgetPlace(place, []);
    const [folder = ''] = await readdir(join(root, 'var/lib/weir'));
    assert.equal((await readdir(join(root, 'var/lib/weir', folder, 'originals'))).length, 1);
    assert.ok((await lstat(join(root, 'var/lib/weir', folder, 'state.json'))).isFile());
  });
});
