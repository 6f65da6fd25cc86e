// The image as the Dockerfile makes it: what is in it, and that every program runs from it as in a cluster.

import assert from 'node:assert/strict';
import { chown, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { pull } from '../../demo/pull.ts';
import manifest from '../../package.json' with { type: 'json' };
import { ACCESS_KEY, BUCKET, SECRET_KEY, startS3Server } from '../s3/s3-server.ts';
import { s3ServerTool } from '../s3/s3-server-tools.ts';
import { makeImage, noise } from '../support/image.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { isMade } from '../tools/cache.ts';
import { missingGo } from '../tools/go-module.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type ContainerOptions, runContainer, startContainer } from './container.ts';
import { buildImage } from './image.ts';
import { type LayoutImage, listLayer, readLayout, unpack } from './oci-layout.ts';
import { missing } from './tier.ts';

const { CI } = process.env;
const impossible = await missing();
const withoutS3 = isMade(s3ServerTool('minio')) ? undefined : await missingGo();
const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
const MAX_OVER_BASE = 60e6;
const NONROOT = 65_532;
const ANSWERS = /"url":"http:[^"]+".*answers"/;

if (impossible !== undefined)
  test('the image', { skip: CI === 'true' ? false : impossible }, () => {
    assert.fail(impossible);
  });

describe('the image', { skip: impossible !== undefined }, () => {
  let scratch: string;
  let root: string;
  let image: LayoutImage;
  let upstream: UpstreamRegistry;
  /** A directory in which the program's user may write. */
  const writable = async (name: string): Promise<string> => {
    const directory = join(scratch, name);
    await mkdir(directory);
    await chown(directory, NONROOT, NONROOT);
    return directory;
  };

  before(async () => {
    scratch = await makeScratch();
    root = join(scratch, 'root');
    image = await readLayout(await buildImage());
    await unpack(image, root);
    upstream = await UpstreamRegistry.start();
    const layers = [{ large: noise(20_000_000) }, { small: noise(300_000, 2) }];
    upstream.push('library/web', '1', await makeImage(layers, architecture));
    await mkdir(join(scratch, 'etc'));
    await writeFile(
      join(scratch, 'etc', 'config.yaml'),
      `upstreams: { docker.io: { endpoint: "${upstream.url}" } }\n`,
    );
  });

  after(async () => {
    await upstream.stop();
    await removeScratch(scratch);
  });

  const containerOf = (volumes: Readonly<Record<string, string>> = {}) => ({
    root,
    config: image.config,
    volumes: { '/etc/weir': join(scratch, 'etc'), ...volumes },
  });

  /** A program that serves: pulls through it with the upstream and without, and ends it as a cluster does. */
  const servePulls = async (options: ContainerOptions, parameters: readonly string[]): Promise<void> => {
    const listen = ['--config', '/etc/weir/config.yaml', '--listen', '127.0.0.1:0'];
    const program = await startContainer({ ...options, ready: ANSWERS }, [...parameters, ...listen]);
    try {
      const url = /"url":"(http:[^"]+)"/.exec(await program.line(ANSWERS))?.[1] ?? '';
      for (const path of ['/livez', '/metrics'])
        assert.equal((await fetch(`${url}${path}`)).status, 200, path);
      const cold = await pull(url, 'docker.io/library/web:1');
      assert.equal(cold.layers, 2);
      await upstream.stop();
      assert.equal((await pull(url, 'docker.io/library/web:1')).bytes, cold.bytes);
      await upstream.resume();
    } finally {
      assert.equal(await program.stop(), 0, program.lines.slice(-5).join('\n'));
    }
  };

  it('says what it is, and runs as nobody', () => {
    const { User, Entrypoint, Cmd, Labels, StopSignal } = image.config;
    assert.deepEqual(
      { User, Entrypoint, Cmd, StopSignal },
      {
        User: '65532:65532',
        Entrypoint: ['/nodejs/bin/node', '/weir/main.js'],
        Cmd: [],
        StopSignal: 'SIGTERM',
      },
    );
    const label = (name: string) => Labels[`org.opencontainers.image.${name}`];
    assert.equal(label('title'), manifest.name);
    assert.equal(label('description'), manifest.description);
    assert.equal(label('licenses'), manifest.license);
    assert.equal(label('version'), manifest.version);
    assert.match(label('revision') ?? '', /^[0-9a-f]{16}$/);
    assert.ok(label('source'));
  });

  it('adds one layer to its base: programs and licences, which only root could write', async () => {
    const [, layer, ...more] = image.layers;
    assert.ok(layer !== undefined && more.length === 0, 'one layer over the base, which is one here');
    const entries = await listLayer(layer);
    const files = entries.filter(({ type }) => type === 'file');
    for (const { name, type, uid, mode = 0 } of entries) {
      assert.match(
        name,
        type === 'directory' ? /^weir\/$/ : /^weir\/(?:[\w-]+\.js|[A-Z-]+(?:\.txt)?|package\.json)$/,
      );
      const permissions = mode & 0o7777;
      assert.deepEqual(
        { name, uid, permissions },
        { name, uid: 0, permissions: type === 'directory' ? 0o755 : 0o644 },
      );
    }
    for (const name of ['main.js', 'hash-worker.js', 'LICENSE', 'THIRD-PARTY.txt'])
      assert.ok(
        files.some((file) => file.name === `weir/${name}`),
        name,
      );
    const size = files.reduce((sum, file) => sum + (file.size ?? 0), 0);
    assert.ok(size <= MAX_OVER_BASE, `${size} bytes`);
  });

  it('carries the licence of every package that weir depends on', async () => {
    const licences = await readFile(join(root, 'weir', 'THIRD-PARTY.txt'), 'utf8');
    const told = new Set([...licences.matchAll(/^(\S+) \d+\.\d+\.\d+ \(/gm)].map(([, name]) => name));
    assert.deepEqual(
      Object.keys(manifest.dependencies).filter((name) => !told.has(name)),
      [],
    );
  });

  it('runs without privileges on a root file system that nobody can write to', async () => {
    const probe = `
      const { readFileSync, writeFileSync } = require('node:fs');
      const status = readFileSync('/proc/self/status', 'utf8');
      let error; try { writeFileSync('/weir/x', ''); } catch ({ code }) { error = code; }
      console.log(process.pid, process.getuid(), process.getgid(), /CapEff:\\t(\\w+)/.exec(status)[1], error);`;
    const entrypoint = ['/nodejs/bin/node', '-e', probe];
    assert.equal(
      await runContainer({ ...containerOf(), entrypoint }, []),
      '1 65532 65532 0000000000000000 EROFS\n',
    );
  });

  it('tells its version and reads a configuration', async () => {
    assert.equal(await runContainer(containerOf(), ['--version']), `${manifest.version}\n`);
    assert.match(
      await runContainer(containerOf(), ['config', 'check', '/etc/weir/config.yaml']),
      /1 upstream mirrored/,
    );
  });

  it('is a registry with its store on a volume', async () => {
    const volumes = { '/data': await writable('registry-data') };
    await servePulls(containerOf(volumes), ['registry', '--store', 'file:/data']);
  });

  it('is a registry with its store in a bucket', { skip: CI === 'true' ? false : withoutS3 }, async () => {
    const s3 = await startS3Server('minio', { scratch });
    const volumes = { '/spool': await writable('spool') };
    const env = { AWS_ACCESS_KEY_ID: ACCESS_KEY, AWS_SECRET_ACCESS_KEY: SECRET_KEY };
    const store = `s3://${BUCKET}/weir?endpoint=${s3.endpoint}&pathStyle=true`;
    const parameters = ['registry', '--store', store, '--spool-dir', '/spool'];
    try {
      await servePulls({ ...containerOf(volumes), env }, parameters);
    } finally {
      await s3.stop();
    }
  });

  it('is both programs of one machine', async () => {
    const volumes = {
      '/data': await writable('standalone-data'),
      '/certs': await writable('standalone-certs'),
    };
    const places = ['--data', '/data', '--certs-dir', '/certs', '--state-dir', '/data/state'];
    await servePulls(containerOf(volumes), ['standalone', ...places]);
  });

  it('is an agent, as root, on the files of the machine, and undoes what that did', async () => {
    const host = join(scratch, 'host');
    await mkdir(host);
    const agent = { ...containerOf({ '/host': host }), user: '0:0' };
    const place = ['--certs-dir', '/host/etc/containerd/certs.d', '--state-dir', '/host/var/lib/weir'];
    const mirror = 'http://127.0.0.1:5700';
    const config = ['--config', '/etc/weir/config.yaml', '--mirror', mirror];
    await runContainer(agent, ['agent', '--once', ...config, ...place]);
    const file = join(host, 'etc', 'containerd', 'certs.d', 'docker.io', 'hosts.toml');
    assert.ok((await readFile(file, 'utf8')).includes(mirror));
    await runContainer(agent, ['rollback', ...place]);
    await assert.rejects(readFile(file), { code: 'ENOENT' });
  });
});
