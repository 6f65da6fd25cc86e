// skopeo stands for CRI-O: both read registries.conf by containers/image, and pull by it. What it pulls comes
// through the door from a real registry of weir, or from a real upstream.

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { pino } from 'pino';
import { CrioFiles } from '../../agent/crio/crio-files.ts';
import { parseRegistries } from '../../agent/crio/registries-conf.ts';
import { Door } from '../../agent/door.ts';
import { parseConfig } from '../../config/parse.ts';
import { canaryOf } from '../../oci/canary.ts';
import { digestOf } from '../../oci/digest.ts';
import { createMetrics } from '../../process/metrics.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { CommandError, run } from '../tools/command.ts';
import { missingProgram, provideProgram, SKOPEO } from '../tools/debian-programs.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type PushedImage, pushImages } from './pushed.ts';
import { missing } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const { CI } = process.env;
const tier = await missing();
const impossible = tier ?? (await missingProgram(SKOPEO));

// In CI what was not tried must not look like what works; the tier as a whole has told that of itself.
if (tier === undefined && impossible !== undefined)
  test('skopeo pulls through weir', { skip: CI === 'true' ? false : impossible }, () => {
    assert.fail(impossible);
  });

const host = '127.0.0.1';
const log = pino({ level: 'silent' });
const signal = () => Promise.resolve();

describe('containers/image pulls through weir', { skip: impossible !== undefined }, () => {
  let scratch: string;
  /** The node's file system, as far as the agent knows it. */
  let root: string;
  let hub: Upstream;
  /** Where a mirror of the user is, with the same images. */
  let users: Upstream;
  let image: PushedImage;
  let mirror: Mirror;
  let door: Door;
  let yaml: (settings?: object) => string;

  before(async () => {
    scratch = await makeScratch();
    root = join(scratch, 'node');
    await mkdir(join(root, 'etc/containers'), { recursive: true });
    await mkdir(join(root, 'proc'));
    await writeFile(join(root, 'proc/stat'), 'btime 0\n');
    await writeFile(
      join(root, 'etc/containers/policy.json'),
      '{"default":[{"type":"insecureAcceptAnything"}]}',
    );
    hub = await startUpstream('hub', scratch);
    users = await startUpstream('users', scratch);
    const [pushed] = await pushImages(hub, hub);
    await pushImages(users, users);
    assert.ok(pushed !== undefined);
    image = pushed;
    yaml = (settings = {}) =>
      JSON.stringify({ upstreams: { 'docker.io': { endpoint: hub.endpoint, ...settings } } });
    mirror = await startMirror(yaml());
    door = await Door.open({ address: { host, port: 0 }, metrics: createMetrics(), log });
    isWell(true);
  });

  after(async () => {
    await door.close();
    await mirror.close();
    await hub.down();
    await users.down();
    await removeScratch(scratch);
  });

  function isWell(yes: boolean): void {
    door.setReplicas(yes ? [{ host, port: Number(new URL(mirror.url).port) }] : []);
  }

  function files(): CrioFiles {
    return new CrioFiles({ root, stateDir: '/var/lib/weir', log, signal });
  }

  /** Every state, once the drop-in is written. */
  async function write(settings?: object): Promise<readonly string[]> {
    const { config } = parseConfig(yaml(settings));
    const { states } = await files().apply({ config, mirror: door.url });
    return [...states.values()].map(({ kind }) => kind);
  }

  async function writeMain(text: string): Promise<void> {
    await writeFile(join(root, 'etc/containers/registries.conf'), text);
  }

  /** As on a node whose /etc has nothing else in it. */
  async function skopeo(...args: readonly string[]): Promise<string> {
    const script =
      'mount -t tmpfs tmpfs /etc && mkdir /etc/containers && mount --bind "$0" /etc/containers && exec "$@"';
    const command = [join(root, 'etc/containers'), await provideProgram(SKOPEO), ...args];
    return run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, ...command]);
  }

  /** The digests of what came, all of it checked by skopeo as it came. */
  async function pull(): Promise<readonly string[]> {
    const directory = join(scratch, 'pulled');
    await rm(directory, { recursive: true, force: true });
    hub.forget();
    users.forget();
    await skopeo('copy', '--quiet', `docker://${image.reference}`, `dir:${directory}`);
    const names = (await readdir(directory)).filter((name) => /^[0-9a-f]{64}$/.test(name));
    const manifest = await readFile(join(directory, 'manifest.json'));
    return [digestOf(manifest), ...names.map((name) => `sha256:${name}`)].toSorted();
  }

  const whole = (): readonly string[] => [...image.digests.keys()].toSorted();

  it('gets everything from the mirror', async () => {
    await writeMain('unqualified-search-registries = ["docker.io"]\n');
    assert.deepEqual(await write(), ['configured']);
    assert.deepEqual(await pull(), whole());
    assert.deepEqual(asked(hub), []);
    assert.notDeepEqual(hub.requests(), [], 'weir asked');
  });

  it('gets it by its short name as well', async () => {
    const listed = await skopeo('inspect', '--raw', 'docker://web:1');
    assert.match(listed, /"schemaVersion"/);
    assert.deepEqual(asked(hub), []);
  });

  it('gets the canary, which proves that it reads the drop-in', async () => {
    const { config } = parseConfig(yaml());
    await files().apply({ config, mirror: door.url, canary: true });
    const { reference, manifest } = canaryOf({ architecture: 'amd64', nonce: 'a'.repeat(32) });
    assert.equal(await skopeo('inspect', '--raw', `docker://${reference}`), manifest.bytes.toString());
    await skopeo('copy', '--quiet', `docker://${reference}`, `dir:${join(scratch, 'canary')}`);
    assert.deepEqual(await write(), ['configured']);
  });

  it('goes on to the upstream when the mirror says no', async () => {
    isWell(false);
    assert.deepEqual(await pull(), whole());
    assert.notDeepEqual(asked(hub), []);
    isWell(true);
  });

  it('goes on to the mirror of the user, and then to the upstream', async () => {
    await writeMain(
      `[[registry]]\nprefix = "docker.io"\nlocation = "${new URL(hub.endpoint).host}"\ninsecure = true\n[[registry.mirror]]\nlocation = "${new URL(users.endpoint).host}"\ninsecure = true\n`,
    );
    assert.deepEqual(await write(), ['configured']);
    await pull();
    assert.deepEqual([asked(users), asked(hub)], [[], []]);
    isWell(false);
    assert.deepEqual(await pull(), whole());
    assert.deepEqual(asked(hub), []);
    assert.notDeepEqual(asked(users), []);
    await users.down();
    assert.deepEqual(await pull(), whole());
    assert.notDeepEqual(asked(hub), []);
    await users.up();
    isWell(true);
  });

  it('does not ask an upstream that is not to be asked', async () => {
    await writeMain('');
    assert.deepEqual(await write({ direct: false }), ['configured']);
    assert.deepEqual(await pull(), whole());
    isWell(false);
    await assert.rejects(pull(), CommandError);
    assert.deepEqual(asked(hub), []);
    isWell(true);
  });

  it('asks no mirror any more once weir has left', async () => {
    await write();
    const changes = await files().restore();
    assert.deepEqual(
      changes.map(({ kind }) => kind),
      ['removed'],
    );
    await writeMain(
      `[[registry]]\nprefix = "docker.io"\nlocation = "${new URL(hub.endpoint).host}"\ninsecure = true\n`,
    );
    assert.deepEqual(await pull(), whole());
    assert.notDeepEqual(asked(hub), []);
  });

  const HUB = '[[registry]]\nprefix = "docker.io"\n';
  for (const [what, text, kind] of [
    [
      'version 1',
      "[registries.search]\nregistries = ['docker.io']\n[registries.block]\nregistries = ['x.corp']\n",
      'main',
    ],
    ['version 1 as a drop-in', "[registries.insecure]\nregistries = ['docker.io']\n", 'drop-in'],
    [
      'both versions',
      `${HUB}location = "x.corp"\n[registries.insecure]\nregistries = ['docker.io']\n`,
      'main',
    ],
    ['a wildcard without a location', '[[registry]]\nprefix = "*.corp"\n', 'drop-in'],
    ['a prefix without a location', HUB, 'drop-in'],
    ['neither', '[[registry]]\ninsecure = true\n', 'drop-in'],
    ['a scheme', `${HUB}location = "https://x.corp"\n`, 'drop-in'],
    ['an unknown key', `${HUB}location = "x.corp"\nnew = 1\n[new]\na = 1\n`, 'drop-in'],
    ['a wrong type', `${HUB}location = "x.corp"\ninsecure = "yes"\n`, 'drop-in'],
    [
      'a mirror without a location',
      `${HUB}location = "x.corp"\n[[registry.mirror]]\ninsecure = true\n`,
      'drop-in',
    ],
    [
      'a choice of mirrors',
      `${HUB}location = "x.corp"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "tag-only"\n`,
      'drop-in',
    ],
    [
      'a choice that there is not',
      `${HUB}location = "x.corp"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "none"\n`,
      'drop-in',
    ],
    [
      'two choices',
      `${HUB}location = "x.corp"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "all"\n`,
      'drop-in',
    ],
    ['a choice for no mirror', `${HUB}location = "x.corp"\npull-from-mirror = "all"\n`, 'drop-in'],
    [
      'one location that is open and not',
      `${HUB}location = "x.corp"\n[[registry]]\nlocation = "x.corp"\ninsecure = true\n`,
      'drop-in',
    ],
    ['a prefix twice', `${HUB}location = "x.corp"\n${HUB}location = "y.corp"\n`, 'drop-in'],
    ['a table that is none', '[registry]\nprefix = "docker.io"\n', 'drop-in'],
  ] as const)
    it(`is read by weir where it is read by skopeo: ${what}`, async () => {
      await rm(join(root, 'etc/containers/registries.conf.d'), { recursive: true, force: true });
      await mkdir(join(root, 'etc/containers/registries.conf.d'));
      await writeMain('');
      const file = kind === 'main' ? 'registries.conf' : 'registries.conf.d/a.conf';
      await writeFile(join(root, 'etc/containers', file), text);
      // Nothing listens there: whoever gets so far has read the configuration.
      const refusal = await skopeo('inspect', `docker://${host}:1/a/b`).catch(String);
      const isRead = /connection refused/.test(refusal);
      assert.ok(isRead || /registries/.test(refusal), refusal);
      if (isRead) assert.doesNotThrow(() => parseRegistries(text, kind));
      else assert.throws(() => parseRegistries(text, kind));
    });
});

/** What skopeo itself asked an upstream for, by path. */
function asked(upstream: Upstream): string[] {
  return upstream
    .requests()
    .filter(({ agent }) => agent.startsWith('skopeo/'))
    .map(({ path }) => path);
}
