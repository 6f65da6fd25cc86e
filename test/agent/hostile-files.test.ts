import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { applyOnce } from '../../agent/agent.ts';
import { openHostDirectory } from '../../agent/host-directory.ts';
import type { Config, Upstream } from '../../config/config.ts';
import { configOf, MIRROR, makeNode } from './node-files.ts';

const TWO = 'upstreams: { docker.io: {}, quay.io: {} }';

const hostile: readonly { name: string; make: (path: string) => Promise<void>; report: RegExp }[] = [
  {
    name: 'a directory',
    make: async (path) => {
      await mkdir(path);
    },
    report: /docker\.io\/hosts\.toml is no regular file\. Move it away\./,
  },
  {
    name: 'a FIFO that nobody writes to',
    make: async (path) => {
      await promisify(execFile)('mkfifo', [path]);
    },
    report: /docker\.io\/hosts\.toml is no regular file\. Move it away\./,
  },
  {
    name: 'a socket',
    make: async (path) => {
      const server = createServer().unref();
      await new Promise<void>((resolve) => server.listen(path, resolve));
    },
    report: /docker\.io\/hosts\.toml is no regular file\. Move it away\./,
  },
  {
    name: '10 MB large',
    make: (path) => writeFile(path, Buffer.alloc(10 * 1024 * 1024, '#')),
    report:
      /docker\.io\/hosts\.toml has more than 262144 bytes, more than a file of registry hosts has\. Move it away\./,
  },
];

for (const { name, make, report } of hostile)
  test(`a hosts.toml that is ${name} is reported, and the next host is configured`, async (t) => {
    const node = await makeNode(t);
    await node.put({ 'docker.io/': '' });
    await make(join(node.certsDir, 'docker.io/hosts.toml'));
    const error = await node.apply(TWO).then(
      () => assert.fail('nothing was reported'),
      (error: unknown) => error,
    );
    assert.ok(error instanceof AggregateError);
    assert.equal(error.errors.length, 1);
    assert.match(error.message, report);
    assert.match(await node.read('quay.io/hosts.toml'), /127\.0\.0\.1/);
    assert.deepEqual(await node.rollback(), ['removed quay.io']);
  });

test('a file in place of a host directory, or of the certificates directory, is reported', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io': '' });
  await assert.rejects(node.apply(TWO), /docker\.io is no directory\. Move it away\./);
  const below = { ...node, certsDir: join(node.certsDir, 'docker.io') };
  await assert.rejects(applyOnce({ ...below, mirror: MIRROR, config: configOf(TWO) }), /ENOTDIR/);
});

test('what the user that weir runs as may not touch is reported with the remedy', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': '', 'quay.io/': '' });
  await chmod(join(node.certsDir, 'docker.io/hosts.toml'), 0o000);
  await chmod(join(node.certsDir, 'quay.io'), 0o555);
  await chmod(dirname(node.certsDir), 0o755);
  await mkdir(node.stateDir);
  await chmod(node.stateDir, 0o777);
  // Root may touch everything: another user has to try.
  const isRoot = process.getuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  try {
    await assert.rejects(
      node.apply(TWO),
      /docker\.io: .*EACCES.*Run weir as root, or give its user access\.\nquay\.io: .*EACCES/,
    );
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

for (const host of ['..', '../evil', '/etc', 'a/../../b', '_default', 'UPPER.example', 'a\0b', ''])
  test(`"${host.replace('\0', '\\0')}" is no host to write a file for, wherever it comes from`, async (t) => {
    const node = await makeNode(t);
    const config = configOf('upstreams: { quay.io: {} }');
    const upstream: Upstream = { ...(config.upstreams.get('quay.io') ?? assert.fail()), host };
    const hostile: Config = { ...config, upstreams: new Map([[host, upstream], ...config.upstreams]) };
    await assert.rejects(node.apply(hostile), /is no registry host/);
    assert.deepEqual(Object.keys(await node.snapshot()), ['.', 'quay.io', 'quay.io/hosts.toml']);
  });

test('no name of a directory leads out of the certificates directory', async (t) => {
  const node = await makeNode(t);
  for (const name of ['..', '.', '../state', '/etc', 'a/b', ''])
    await assert.rejects(openHostDirectory(node.certsDir, name), /leads out of/);
});

for (const mirror of [
  '',
  '127.0.0.1:30500',
  'ftp://a',
  'http://u:p@a',
  'http://a?b',
  'http://a\nb',
  'http://a b',
])
  test(`"${mirror.replace('\n', '\\n')}" is no address of a mirror`, async (t) => {
    const node = await makeNode(t);
    await assert.rejects(node.apply(TWO, mirror), /is no address of a mirror\. Write it as/);
    assert.deepEqual(await node.snapshot(), {});
  });

test('a state directory that cannot be made leaves the files as they were', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': '[host.a]\n' });
  const before = await node.snapshot();
  await writeFile(node.stateDir, 'in the way');
  await assert.rejects(applyOnce({ ...node, mirror: MIRROR, config: configOf(TWO) }), /ENOTDIR|EEXIST/);
  assert.deepEqual(await node.snapshot(), before);
  assert.equal(await readFile(node.stateDir, 'utf8'), 'in the way');
});
