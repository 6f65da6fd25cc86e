import assert from 'node:assert/strict';
import { cp, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { CertsDirectories } from '../../agent/certs-directories.ts';
import { restoreFormer } from '../../agent/former-directories.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { configOf, MIRROR } from './node-files.ts';

const CONFIG = configOf('upstreams: { docker.io: {}, quay.io: {} }');
/** As MicroK8s ships it. */
const SHIPPED = 'server = "https://docker.io"\n\n[host."https://registry-1.docker.io"]\n';

test('a refreshed MicroK8s, which snapd copied with our files in it, keeps what was there before weir', async (t) => {
  const node = await makeMicroK8s(t);
  await node.files.apply({ config: CONFIG, mirror: MIRROR });
  await cp(node.at('8511'), node.at('8512'), { recursive: true });
  await node.refresh('8512');

  const ofOld = await restoreFormer(node.place, node.files);
  assert.deepEqual(
    ofOld.map(({ kind, host }) => `${kind} ${host}`),
    ['restored docker.io', 'removed quay.io'],
  );
  assert.equal(await node.hosts('8511', 'docker.io'), SHIPPED);
  assert.match(await node.hosts('8512', 'docker.io'), /# weir/);

  await node.files.apply({ config: CONFIG, mirror: MIRROR });
  await rm(node.at('8511'), { recursive: true });
  await node.files.restore();
  assert.equal(await node.hosts('8512', 'docker.io'), SHIPPED);
  await assert.rejects(stat(node.at('8512/args/certs.d/quay.io')), { code: 'ENOENT' });
});

test('what is in use by another path than the remembered one is no former directory', async (t) => {
  const node = await makeMicroK8s(t);
  await node.files.apply({ config: CONFIG, mirror: MIRROR });
  assert.deepEqual(await restoreFormer(node.place, node.files), []);
  assert.match(await node.hosts('8511', 'docker.io'), /# weir/);
});

async function makeMicroK8s(t: TestContext) {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  const at = (path: string): string => join(root, 'var/snap/microk8s', path);
  const place = { root, stateDir: '/var/lib/weir', log: pino({ level: 'silent' }) };
  await mkdir(at('8511/args/certs.d/docker.io'), { recursive: true });
  await writeFile(at('8511/args/certs.d/docker.io/hosts.toml'), SHIPPED);
  const refresh = async (revision: string): Promise<void> => {
    await rm(at('current'), { force: true });
    await symlink(revision, at('current'));
  };
  await refresh('8511');
  return {
    at,
    place,
    refresh,
    files: new CertsDirectories(place, ['/var/snap/microk8s/current/args/certs.d']),
    hosts: (revision: string, host: string) =>
      readFile(at(`${revision}/args/certs.d/${host}/hosts.toml`), 'utf8'),
  };
}
