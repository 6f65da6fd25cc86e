import assert from 'node:assert/strict';
import { mkdir, readFile, rename, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import process from 'node:process';
import { test } from 'node:test';
import { applyOnce } from '../../agent/agent.ts';
import { rollback } from '../../agent/rollback.ts';
import { bodyOf, configOf, MIRROR, makeNode } from './node-files.ts';

const USERS = '# mine\nserver = "https://hub.corp"\n';
const HUB = 'upstreams: { docker.io: {}, ghcr.io: {} }';

test('an original comes back when the directory was configured through a symbolic link', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  const link = join(dirname(node.certsDir), 'link');
  await symlink(node.certsDir, link);
  await applyOnce({ ...node, certsDir: link, mirror: MIRROR, config: configOf(HUB) });
  await node.rollback();
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('an original comes back when the directory is seen under another path, as a mount is', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': USERS });
  await node.apply(HUB);
  const elsewhere = join(dirname(node.certsDir), 'host', 'certs.d');
  await mkdir(dirname(elsewhere));
  await rename(node.certsDir, elsewhere);
  await rollback({ ...node, certsDir: elsewhere });
  assert.equal(await readFile(join(elsewhere, 'docker.io/hosts.toml'), 'utf8'), USERS);
});

test('a relative path is the same place, also before it is there', async (t) => {
  const node = await makeNode(t, 'not/there/yet');
  const certsDir = relative(process.cwd(), node.certsDir);
  const config = configOf(HUB);
  assert.equal((await applyOnce({ ...node, certsDir, mirror: MIRROR, config })).length, 2);
  assert.deepEqual(await applyOnce({ ...node, certsDir, mirror: MIRROR, config }), []);
  assert.equal((await node.rollback()).length, 2);
  await assert.rejects(readFile(join(dirname(node.certsDir), 'yet')), /ENOENT/);
});

test('with another state directory, what had an original is kept, freed of our host, and said so', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': 'server = "https://hub-proxy.corp"\n' });
  await node.apply(HUB);
  await assert.rejects(
    rollback({ ...node, stateDir: `${node.stateDir}-mistyped` }),
    /the original of .*docker\.io\/hosts\.toml, .* is not in the state directory .*-mistyped.*--state-dir/,
  );
  assert.equal(bodyOf(await node.read('docker.io/hosts.toml')), 'server = "https://hub-proxy.corp"\n');
});
