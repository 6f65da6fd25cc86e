// That a runtime obeys is proven with real containerds, and that one does not is found out: in each of the ways in
// which nodes were seen to pass by their mirror unnoticed.

import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { applyOnce } from '../../agent/agent.ts';
import { Cri } from '../../agent/cri.ts';
import { Door } from '../../agent/door.ts';
import { type Proof, prove } from '../../agent/proof.ts';
import { parseConfig } from '../../config/parse.ts';
import { canaryOf } from '../../oci/canary.ts';
import { createMetrics } from '../../process/metrics.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type Containerd, startContainerd, versions } from './containerd.ts';
import { type PushedImage, pushImages } from './pushed.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

// That a version cannot be tried here is told, and fails in CI, in pull.test.ts.
const impossible = await missing();
const lacking = await missingVersions();
const runnable = impossible === undefined ? versions.filter((version) => !lacking.has(version)) : [];

const host = '127.0.0.1';
const log = pino({ level: 'silent' });
const MANY = 20;

describe('whether containerd pulls through the mirror', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  let hub: Upstream;
  let image: PushedImage;
  let yaml: string;
  let mirror: Mirror;
  let door: Door;

  before(async () => {
    scratch = await makeScratch();
    hub = await startUpstream('hub', scratch);
    const [pushed] = await pushImages(hub, hub);
    assert.ok(pushed !== undefined);
    image = pushed;
    yaml = JSON.stringify({ upstreams: { 'docker.io': { endpoint: hub.endpoint } } });
    mirror = await startMirror(yaml);
    door = await Door.open({ address: { host, port: 0 }, metrics: createMetrics(), log });
    useReplica();
  });

  after(async () => {
    await door.close();
    await mirror.close();
    await hub.down();
    await removeScratch(scratch);
  });

  function useReplica(): void {
    door.setReplicas([{ host, port: Number(new URL(mirror.url).port) }]);
  }

  for (const version of runnable) {
    describe(`containerd ${version}`, () => {
      let directory: string;
      let certs: string;

      before(async () => {
        directory = join(scratch, version);
        certs = join(directory, 'certs.d');
        await mkdir(certs, { recursive: true });
        await writeFiles(certs);
      });

      async function writeFiles(certsDir: string): Promise<void> {
        const { config } = parseConfig(yaml);
        const stateDir = join(directory, 'state');
        await applyOnce({ certsDir, stateDir, mirror: door.url, config, canary: true, log });
      }

      /** With a containerd whose CRI has this table `registry`. */
      async function withContainerd(
        registry: string,
        use: (containerd: Containerd) => Promise<void>,
      ): Promise<void> {
        const containerd = await startContainerd(version, certs, directory, registry);
        try {
          await use(containerd);
        } finally {
          await containerd.stop();
        }
      }

      const proofOf = ({ root, socket }: Containerd): Promise<Proof> =>
        prove({ root, socket, mirror: door.url, certsDir: certs, log });

      /** A machine that is busy may be too late to answer, of which a proof says that it shows nothing. */
      async function assertProven(containerd: Containerd): Promise<void> {
        let proof = await proofOf(containerd);
        for (let again = 0; proof.kind === 'unproven' && again < 3; again++)
          proof = await proofOf(containerd);
        assert.equal(proof.kind, 'proven', 'reason' in proof ? proof.reason : '');
      }

      async function assertBypassed(containerd: Containerd, reason: RegExp): Promise<void> {
        const proof = await proofOf(containerd);
        assert.equal(proof.kind, 'bypassed');
        assert.match('reason' in proof ? proof.reason : '', reason);
        assert.deepEqual(await containerd.holdings(), []);
      }

      it('is proven where it does, and nothing of the proof stays', async (t) => {
        await withContainerd(`config_path = ${JSON.stringify(certs)}`, async (containerd) => {
          const began = performance.now();
          const proof = await proofOf(containerd);
          t.diagnostic(`${Math.round(performance.now() - began)} ms`);
          assert.equal(proof.kind, 'proven');
          if (proof.kind !== 'proven') return;
          assert.equal(proof.runtime.name, 'containerd');
          assert.match(proof.runtime.version, new RegExp(`^v?${version.replace('.', '\\.')}\\.`));
          assert.deepEqual(await containerd.holdings(), []);
        });
      });

      it(`is proven ${MANY} times without a trace, and without another image being touched`, async () => {
        await withContainerd(`config_path = ${JSON.stringify(certs)}`, async (containerd) => {
          await containerd.pull(image.reference);
          const before = await containerd.holdings();
          assert.ok(before.length > 0);
          for (let round = 0; round < MANY; round++) await assertProven(containerd);
          assert.deepEqual(await containerd.holdings(), before);
          assert.deepEqual(await containerd.files(image.reference), image.files);
        });
      });

      it('is proven with what a killed agent left, which goes', async () => {
        await withContainerd(`config_path = ${JSON.stringify(certs)}`, async (containerd) => {
          const cri = await Cri.connect(containerd);
          const left = canaryOf({ architecture: 'amd64', nonce: 'e'.repeat(32) });
          await cri.pull(left.reference, { timeout: 60_000 });
          assert.equal((await cri.images()).length, 1);
          cri.close();
          await assertProven(containerd);
          assert.deepEqual(await containerd.holdings(), []);
        });
      });

      it('is found out where it has no config_path', async () => {
        await withContainerd('', async (containerd) => {
          await assertBypassed(
            containerd,
            version === '2.3'
              ? /^the runtime does not read hosts\.toml: is its config_path \S+, and not a list/
              : /^the runtime does not read hosts\.toml: its config_path is empty; set it to \S+certs\.d and restart it/,
          );
        });
      });

      it('is found out where it reads another directory', async () => {
        await withContainerd('config_path = "/etc/elsewhere"', async (containerd) => {
          const reason =
            version === '2.3'
              ? /is its config_path/
              : /its config_path is \/etc\/elsewhere, and weir's files/;
          await assertBypassed(containerd, reason);
        });
      });

      it('is told of a list of directories, which 2.3 takes for one', async () => {
        const list = `${certs}:/etc/docker/certs.d`;
        await withContainerd(`config_path = ${JSON.stringify(list)}`, async (containerd) => {
          if (version !== '2.3') {
            await assertProven(containerd);
            return;
          }
          await assertBypassed(containerd, /and not a list of directories \(containerd 2\.2 and newer\)\?/);
          // The way out: the same files in a directory of just that name.
          await writeFiles(list);
          await assertProven(containerd);
          await rm(`${certs}:`, { recursive: true });
        });
      });

      it('is found out where its hosts.toml cannot be read', async () => {
        await withContainerd(`config_path = ${JSON.stringify(certs)}`, async (containerd) => {
          const file = join(certs, 'canary.weir.internal', 'hosts.toml');
          await writeFile(file, 'server = "http://127.0.0.1\n');
          await assertBypassed(
            containerd,
            version === '2.3'
              ? /does not read hosts\.toml/
              : /its log says what is wrong with \S+\/hosts\.toml/,
          );
          await writeFile(file, `server = "${door.url}"\n[host."${door.url}"]\nca = "absent.pem"\n`);
          await assertBypassed(containerd, /absent\.pem/);
          await rm(file);
          await writeFiles(certs);
          await assertProven(containerd);
        });
      });

      it('is not to be said while the registry is away, and again when it is back', async () => {
        await withContainerd(`config_path = ${JSON.stringify(certs)}`, async (containerd) => {
          door.setReplicas([]);
          assert.deepEqual(await proofOf(containerd), {
            kind: 'unproven',
            reason: `the mirror does not answer: ${door.url} answers 503: the mirror on this node: no replica of the registry is ready`,
          });
          assert.deepEqual(await containerd.holdings(), []);
          useReplica();
          await assertProven(containerd);
        });
      });
    });
  }

  it('is not to be said where no containerd runs', async () => {
    const { kind } = await prove({ socket: join(scratch, 'none'), mirror: door.url, certsDir: '/', log });
    assert.equal(kind, 'unproven');
  });
});
