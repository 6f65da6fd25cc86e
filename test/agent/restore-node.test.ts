import assert from 'node:assert/strict';
import fs, { mkdir, readdir, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { applyOnce } from '../../agent/agent.ts';
import { leaveNode } from '../../agent/restore-node.ts';
import type { NodePlace } from '../../agent/state.ts';
import { CERTS, CONFIG, EDITED, makeTestNode, PLAIN, STATE, type TestNode } from './configure-node.ts';
import { configOf, MIRROR } from './node-files.ts';

const ORIGINALS = `${STATE}/runtime-configuration`;

/** Its runtime is configured, and has files of two hosts. */
async function makeLeft(t: TestContext): Promise<{ node: TestNode; place: NodePlace }> {
  const node = await makeTestNode(t);
  await node.configure();
  const place = { root: node.root, stateDir: STATE, log: pino({ level: 'silent' }) };
  const config = configOf('upstreams: { docker.io: {}, ghcr.io: {} }');
  await applyOnce({ ...place, certsDir: CERTS, config, mirror: MIRROR });
  return { node, place };
}

test("a host that cannot be restored does not keep the runtime's configuration, nor another host, from it", async (t) => {
  const { node, place } = await makeLeft(t);
  const file = join(node.root, CERTS, 'docker.io/hosts.toml');
  await rm(file);
  await mkdir(file);
  await assert.rejects(leaveNode(place, [CERTS], []), { name: 'RestoreFailure', message: /docker\.io/ });
  assert.equal(await node.read(), PLAIN);
  assert.deepEqual(Object.keys(await node.files(CERTS)), ['docker.io', 'docker.io/hosts.toml']);
  await rm(file, { recursive: true });
  await leaveNode(place, [CERTS], []);
  assert.deepEqual(await node.files('/var/lib'), {});
});

test("the runtime's configuration that cannot be restored does not keep the hosts from it", async (t) => {
  const { node, place } = await makeLeft(t);
  const [original = ''] = Object.keys(await node.files(ORIGINALS)).filter((name) =>
    name.includes('original-'),
  );
  await rm(join(node.root, ORIGINALS, original));
  await assert.rejects(leaveNode(place, [CERTS], []), /original-\w+ is not the file that was saved there/);
  assert.equal(await node.read(CONFIG), EDITED);
  assert.deepEqual(await node.files(CERTS), {});
});

for (const code of ['EBUSY', 'EACCES', 'EPERM', 'EROFS'])
  test(`a state directory that cannot be removed itself (${code}) does not keep a node from being left`, async (t) => {
    const { node, place } = await makeLeft(t);
    const { rmdir } = fs;
    const mock = t.mock.method(fs, 'rmdir', async (path: string) => {
      if (path === join(node.root, STATE)) throw Object.assign(new Error('it stays'), { code });
      await rmdir(path);
    });
    syncBuiltinESMExports();
    try {
      await leaveNode(place, [CERTS], []);
      await leaveNode(place, [CERTS], []);
    } finally {
      mock.mock.restore();
      syncBuiltinESMExports();
    }
    assert.deepEqual(await readdir(join(node.root, STATE)), []);
    assert.equal(await node.read(), PLAIN);
  });
