import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { test } from 'node:test';
import { pino } from 'pino';
import { CrioFiles } from '../../agent/crio/crio-files.ts';
import { DockerFiles } from '../../agent/docker/docker-files.ts';
import { withNodeLock } from '../../agent/node-lock.ts';
import { rollback } from '../../agent/rollback.ts';
import { settle } from '../../agent/state.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { makeNode } from './node-files.ts';

const HUB = 'upstreams: { docker.io: {} }';
const USERS = 'server = "https://hub.corp"\n';

test('a rollback waits for another process that works on the same node, and not for one on another', async (t) => {
  const [node, other] = [await makeNode(t), await makeNode(t)];
  for (const one of [node, other]) {
    await one.put({ 'docker.io/hosts.toml': USERS });
    await one.apply(HUB);
  }
  const done: string[] = [];
  const released = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const work = withNodeLock(await settle(node), async () => {
    held.resolve();
    await released.promise;
    done.push('work');
  });
  await held.promise;
  const waiting = rollback(node).then(() => done.push('rollback'));
  await other.rollback();
  assert.equal(await other.read('docker.io/hosts.toml'), USERS);
  assert.match(await node.read('docker.io/hosts.toml'), /# weir/);
  released.resolve();
  await Promise.all([work, waiting]);
  assert.deepEqual(done, ['work', 'rollback']);
  assert.equal(await node.read('docker.io/hosts.toml'), USERS);
});

test('it is the same lock however the state directory is written, and whichever runtime is told', async (t) => {
  const scratch = await makeScratch();
  t.after(() => removeScratch(scratch));
  await symlink('/opt/weir', join(scratch, 'state'));
  const log = pino({ level: 'silent' });
  const released = Promise.withResolvers<void>();
  const place = await settle({ root: scratch, certsDir: '/certs.d', stateDir: '/opt/weir', log });
  const work = withNodeLock(place, () => released.promise);
  const ends: string[] = [];
  const restored = [CrioFiles, DockerFiles].map(async (Files) => {
    await new Files({ root: scratch, stateDir: '/state', log }).restore();
    ends.push(Files.name);
  });
  await withNodeLock({ root: scratch, stateDir: '/elsewhere', log }, () => Promise.resolve());
  assert.deepEqual(ends, []);
  released.resolve();
  await Promise.all([work, ...restored]);
  assert.deepEqual(new Set(ends), new Set(['CrioFiles', 'DockerFiles']));
});

test('the lock of a process that was killed is free', async (t) => {
  const node = await settle(await makeNode(t));
  const { root, stateDir } = node;
  const script = `
    import { withNodeLock } from ${JSON.stringify(join(import.meta.dirname, '../../agent/node-lock.ts'))};
    const place = { ...${JSON.stringify({ root, stateDir })}, log: { warn: console.error } };
    await withNodeLock(place, () => { console.log('held'); return new Promise(() => undefined); });`;
  const child = spawn(execPath, ['--input-type=module', '--eval', script]);
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data', { signal: AbortSignal.timeout(20_000) });
  const log = pino({ level: 'silent' });
  const taken = withNodeLock({ root, stateDir, log }, () => Promise.resolve(child.killed));
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(await taken, true, 'and not before');
});
