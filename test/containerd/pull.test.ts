// Real containerds pull through weir from real registries, which then go away. What is compared is what a
// container would find: the unpacked files.

import assert from 'node:assert/strict';
import { after, before, describe, it, test } from 'node:test';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { versions } from './containerd.ts';
import { type Machine, startMachine } from './machine.ts';
import { type PushedImage, type PushedIndex, pushImages, pushIndex } from './pushed.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';
import { eventually } from './weir.ts';

const { CI } = process.env;
const impossible = await missing();
const lacking = await missingVersions();

// In CI a version that was not tried must not look like one that works.
for (const version of versions) {
  const reason = impossible ?? lacking.get(version);
  if (reason === undefined) continue;
  test(`containerd ${version} pulls through weir`, {
    skip: CI === 'true' ? false : reason,
  }, () => {
    assert.fail(reason);
  });
}

const runnable = impossible === undefined ? versions.filter((version) => !lacking.has(version)) : [];

describe('containerd pulls through weir', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  let hub: Upstream;
  let ghcr: Upstream;
  let images: PushedImage[];
  let index: PushedIndex;

  before(async () => {
    scratch = await makeScratch();
    hub = await startUpstream('hub', scratch);
    ghcr = await startUpstream('ghcr', scratch);
    images = await pushImages(hub, ghcr);
    index = await pushIndex(hub);
  });

  after(async () => {
    await upstreamsDown();
    await removeScratch(scratch);
  });

  for (const version of runnable) {
    describe(`containerd ${version}`, () => {
      let machine: Machine;
      let ownHostsFile: string;

      before(async () => {
        await upstreamsUp();
        ownHostsFile = `# Our own file, with its own spacing.\nserver   = "${ghcr.endpoint}"\n\n[host."${ghcr.endpoint}"]\n  capabilities = ["pull", "resolve"]\n`;
        machine = await startMachine({
          version,
          scratch,
          upstreams: new Map([
            ['docker.io', hub],
            ['ghcr.io', ghcr],
          ]),
          ownHostsFiles: new Map([['ghcr.io', ownHostsFile]]),
        });
        await machine.weirUp();
      });

      after(() => machine.stop());

      it('gets images whole while weir fetches each digest once', async () => {
        await upstreamsUp();
        forgetRequests();
        await pullAndCompare(machine, images);
        await upstreamsDown();
        assert.deepEqual(fetches(images), onceEach(images));
        assert.deepEqual(requestsOfContainerd(), []);
        for (const { registry, digests } of images) {
          for (const paths of digests.values()) await machine.weirAnswered(registry, paths);
        }
      });

      it('gets only its own platform of a multi-platform image', async () => {
        await upstreamsUp();
        forgetRequests();
        await pullAndCompare(machine, [index]);
        await upstreamsDown();
        assert.deepEqual(fetches([index]), onceEach([index]));
        assert.deepEqual(
          hub.requests().filter(({ path }) => index.foreignPaths.has(path)),
          [],
        );
      });

      it('gets the same images again when both upstreams are gone', async () => {
        await upstreamsDown();
        await pullAndCompare(machine, [...images, index]);
      });

      it('gets them from a weir that was stopped and started again', async () => {
        await upstreamsDown();
        assert.equal(await machine.weirDown(), 0);
        await machine.weirUp();
        await pullAndCompare(machine, [...images, index]);
      });

      it('goes to the upstream itself while weir is away', async () => {
        await upstreamsUp();
        await machine.weirDown();
        forgetRequests();
        await pullAndCompare(machine, images);
        await upstreamsDown();
        assert.deepEqual(fetches(images), onceEach(images));
        assert.deepEqual(requestsOfContainerd(), [...hub.requests(), ...ghcr.requests()]);
      });

      it('is left with the hosts files that it had once weir is switched off', async () => {
        await machine.weirUp();
        assert.notEqual(await machine.hostsFile('docker.io'), undefined);
        assert.notEqual(await machine.hostsFile('ghcr.io'), ownHostsFile);
        await machine.configure({ enabled: false });
        await eventually(
          'weir takes its hosts files away',
          async () => (await machine.hostsFile('docker.io')) === undefined,
        );
        await eventually(
          'weir restores the hosts file of ghcr.io',
          async () => (await machine.hostsFile('ghcr.io')) === ownHostsFile,
        );
      });

      it('is left with the hosts files that it had after a rollback', async () => {
        await machine.configure({ enabled: true });
        await machine.weirUp();
        await eventually(
          'weir writes its hosts files',
          async () => (await machine.hostsFile('docker.io')) !== undefined,
        );
        await machine.weirDown();
        await machine.rollBack();
        assert.equal(await machine.hostsFile('docker.io'), undefined);
        assert.equal(await machine.hostsFile('ghcr.io'), ownHostsFile);
      });
    });
  }

  async function upstreamsUp(): Promise<void> {
    await Promise.all([hub.up(), ghcr.up()]);
  }

  async function upstreamsDown(): Promise<void> {
    await Promise.all([hub.down(), ghcr.down()]);
  }

  function forgetRequests(): void {
    for (const upstream of [hub, ghcr]) upstream.forget();
  }

  /** How often an upstream handed out each digest. */
  function fetches(pulled: readonly PushedImage[]): Map<string, number> {
    const handedOut = [...hub.requests(), ...ghcr.requests()].filter(
      ({ method, status }) => method === 'GET' && status < 300,
    );
    const count = (paths: readonly string[]) => handedOut.filter(({ path }) => paths.includes(path)).length;
    return new Map(
      pulled.flatMap(({ digests }) => [...digests].map(([digest, paths]) => [digest, count(paths)] as const)),
    );
  }

  function requestsOfContainerd() {
    return [...hub.requests(), ...ghcr.requests()].filter(({ agent }) => agent.startsWith('containerd/'));
  }
});

function onceEach(pulled: readonly PushedImage[]): Map<string, number> {
  return new Map(pulled.flatMap(({ digests }) => [...digests.keys()].map((digest) => [digest, 1] as const)));
}

async function pullAndCompare({ containerd }: Machine, images: readonly PushedImage[]): Promise<void> {
  await containerd.removeImages();
  for (const image of images) {
    await containerd.pull(image.reference);
    assert.deepEqual(await containerd.files(image.reference), image.files, image.reference);
  }
}
