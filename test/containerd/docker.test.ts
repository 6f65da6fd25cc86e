// Real dockerds pull from Docker Hub through weir once their daemon.json says so, and are told of each change by a
// SIGHUP: what they go by is what they say of themselves.

import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { pino } from 'pino';
import { DockerFiles, type DockerOptions } from '../../agent/docker/docker-files.ts';
import { Door } from '../../agent/door.ts';
import { hangUpBelow } from '../../agent/hang-up.ts';
import { parseConfig } from '../../config/parse.ts';
import { createMetrics } from '../../process/metrics.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { DOCKERDS, missingProgram } from '../tools/debian-programs.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type DockerVersion, dockerVersions, type RealDockerd, startDockerd } from './dockerd.ts';
import { type PushedImage, pushImages } from './pushed.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

const { CI } = process.env;
const tier = await missing();
const lacking = await missingVersions();

/** Why this machine cannot run it. */
async function missingDocker(version: DockerVersion): Promise<string | undefined> {
  return lacking.get(version === '20.10' ? '1.6' : '1.7') ?? (await missingProgram(DOCKERDS[version]));
}

const runnable: DockerVersion[] = [];
for (const version of tier === undefined ? dockerVersions : []) {
  const reason = await missingDocker(version);
  if (reason === undefined) runnable.push(version);
  // In CI what was not tried must not look like what works.
  else
    test(`Docker ${version} pulls through weir`, { skip: CI === 'true' ? false : reason }, () => {
      assert.fail(reason);
    });
}

const host = '127.0.0.1';
const log = pino({ level: 'silent' });

describe('Docker pulls through weir', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  let hub: Upstream;
  /** Where a mirror of the user is, with the same images. */
  let users: Upstream;
  let image: PushedImage;
  let mirror: Mirror;
  let door: Door;
  let yaml: string;

  before(async () => {
    scratch = await makeScratch();
    hub = await startUpstream('hub', scratch);
    users = await startUpstream('users', scratch);
    const [pushed] = await pushImages(hub, hub);
    await pushImages(users, users);
    assert.ok(pushed !== undefined);
    image = pushed;
    yaml = JSON.stringify({ upstreams: { 'docker.io': { endpoint: hub.endpoint } } });
    mirror = await startMirror(yaml);
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

  for (const version of runnable) {
    describe(`Docker ${version}`, () => {
      let dockerd: RealDockerd;
      let files: DockerFiles;
      let daemonJson: string;
      let told = 0;

      before(async () => {
        dockerd = await startDockerd(version);
        daemonJson = join(dockerd.root, 'etc/docker/daemon.json');
        files = filesOf();
      });

      after(() => dockerd.stop());

      function filesOf(options: Partial<DockerOptions> = {}): DockerFiles {
        const { root, pid } = dockerd;
        const hangUp = hangUpBelow(root);
        const signal: DockerOptions['signal'] = async (process) => {
          // The machine may have one of its own.
          if (process.pid !== pid) return;
          told += 1;
          await hangUp(process);
        };
        return new DockerFiles({ root, stateDir: '/run/weir/state', log, settle: 0, signal, ...options });
      }

      async function apply(by = files): Promise<string> {
        const { config } = parseConfig(yaml);
        const { states } = await by.apply({ config, mirror: door.url });
        const state = states.get('docker.io');
        return state?.kind === 'configured' ? state.kind : `${state?.kind}: ${state?.reason}`;
      }

      async function pull(): Promise<void> {
        await dockerd.removeImages();
        hub.forget();
        users.forget();
        await dockerd.pull('library/web', '1');
        const [manifest = ''] = image.digests.keys();
        assert.ok((await dockerd.digests('web:1')).includes(manifest), 'it is the image that was pushed');
      }

      it('once it is told, without a daemon.json of its own', async () => {
        assert.deepEqual(await dockerd.mirrors(), []);
        assert.equal(await apply(), 'configured');
        assert.deepEqual(await dockerd.mirrors(), [`${door.url}/`]);
        assert.equal(told, 1);
        await pull();
        assert.deepEqual(asked(hub), []);
        assert.equal(await apply(), 'configured');
        assert.equal(told, 1);
      });

      it('no more once weir has left, and has no daemon.json', async () => {
        assert.deepEqual(
          (await files.restore()).map(({ kind, reason }) => [kind, reason]),
          [['removed', undefined]],
        );
        assert.deepEqual(await dockerd.mirrors(), []);
        await assert.rejects(readFile(daemonJson), /ENOENT/);
      });

      it('before the mirror of the user, which is asked when ours says no', async () => {
        const own = `{ "registry-mirrors": [ "${users.endpoint}" ],  "debug": false }\n`;
        await mkdir(join(dockerd.root, 'etc/docker'), { recursive: true });
        await writeFile(daemonJson, own);
        assert.equal(await apply(), 'configured');
        assert.deepEqual(await dockerd.mirrors(), [`${door.url}/`, `${users.endpoint}/`]);
        await pull();
        assert.deepEqual([asked(hub), asked(users)], [[], []]);
        isWell(false);
        await pull();
        assert.notDeepEqual(asked(users), []);
        isWell(true);
        await files.restore();
        assert.equal(await readFile(daemonJson, 'utf8'), own);
        assert.deepEqual(await dockerd.mirrors(), [`${users.endpoint}/`]);
        await rm(daemonJson);
      });

      it('unless it refuses the file, which is told', async () => {
        await writeFile(daemonJson, '{ "no-such-thing": true }');
        const impatient = filesOf({ patience: 500 });
        assert.match(
          await apply(impatient),
          /^unsupported: \/etc\/docker\/daemon\.json is written, but dockerd goes by /,
        );
        await impatient.restore();
        assert.equal(await readFile(daemonJson, 'utf8'), '{ "no-such-thing": true }');
      });
    });
  }
});

/** What Docker itself asked an upstream for, by path. */
function asked(upstream: Upstream): string[] {
  return upstream
    .requests()
    .filter(({ agent }) => agent.startsWith('docker/'))
    .map(({ path }) => path);
}
