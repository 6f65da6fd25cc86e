// A real client, oras, finds and pulls what is attached to an image through weir: by the referrers API where the
// upstream has it, by the tags of the referrers tag schema where it has not.

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import { startUpstream } from '../containerd/upstream.ts';
import { provide } from '../tools/cache.ts';
import { run } from '../tools/command.ts';
import { goModule } from '../tools/go-module.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { startArtifactRegistry } from './artifact-registry.ts';
import { startWeirRegistry, type WeirRegistry } from './weir.ts';

const REPOSITORY = 'team/app';
const SIGNATURE = 'application/vnd.example.signature.v1';
const SBOM = 'application/spdx+json';

const pushed = z.object({ digest: z.string() });
const discovered = z.object({
  referrers: z.array(z.object({ digest: z.string(), artifactType: z.string() })).nullish(),
});

const upstreams = {
  'with the referrers API': () => startArtifactRegistry(REPOSITORY),
  'with the referrers tag schema only': (scratch: string) => startUpstream('docker.io', scratch),
};

for (const [kind, startUpstreamOf] of Object.entries(upstreams))
  suite(`oras finds what is attached to an image through weir, of an upstream ${kind}`, () => {
    let scratch: string;
    let upstream: Awaited<ReturnType<typeof startUpstreamOf>>;
    let weir: WeirRegistry;
    let oras: string;
    let image: string;
    let signature: string;

    const ask = async (...parameters: string[]): Promise<string> => {
      const { PATH = '' } = process.env;
      // Its configuration and cache are looked for below HOME.
      return run(oras, [...parameters, '--plain-http'], { cwd: scratch, env: { PATH, HOME: scratch } });
    };
    const discover = async (...filter: string[]): Promise<string[]> => {
      const found = await ask(
        'discover',
        at(weir.url, `@${image}`),
        '--depth',
        '1',
        '--format',
        'json',
        ...filter,
      );
      return (discovered.parse(JSON.parse(found)).referrers ?? [])
        .map(({ artifactType }) => artifactType)
        .toSorted();
    };

    before(async () => {
      scratch = await makeScratch();
      oras = join(await provide(goModule('artifacts')), 'oras');
      upstream = await startUpstreamOf(scratch);
      weir = await startWeirRegistry(scratch, upstream.endpoint);
      const push = async (file: string, command: readonly string[]): Promise<string> => {
        await writeFile(join(scratch, file), `this is ${file}\n`);
        return pushed.parse(JSON.parse(await ask(...command, file, '--format', 'json'))).digest;
      };
      image = await push('app', ['push', at(upstream.endpoint, ':v1')]);
      signature = await push('app.sig', [
        'attach',
        at(upstream.endpoint, ':v1'),
        '--artifact-type',
        SIGNATURE,
      ]);
      await push('app.spdx', ['attach', at(upstream.endpoint, ':v1'), '--artifact-type', SBOM]);
    });
    after(async () => {
      await weir.stop();
      await upstream.down();
      await removeScratch(scratch);
    });

    test('all of it, and only one kind', async () => {
      assert.deepEqual(await discover(), [SBOM, SIGNATURE].toSorted());
      assert.deepEqual(await discover('--artifact-type', SIGNATURE), [SIGNATURE]);
    });

    test('and pulls it', async () => {
      await mkdir(join(scratch, 'pulled'));
      await ask('pull', at(weir.url, `@${signature}`), '--output', join(scratch, 'pulled'));
      assert.equal(await readFile(join(scratch, 'pulled', 'app.sig'), 'utf8'), 'this is app.sig\n');
    });

    test('also with the upstream away', async () => {
      await upstream.down();
      assert.deepEqual(await discover(), [SBOM, SIGNATURE].toSorted());
      await ask('pull', at(weir.url, `@${signature}`), '--output', join(scratch, 'again'));
      assert.equal(await readFile(join(scratch, 'again', 'app.sig'), 'utf8'), 'this is app.sig\n');
    });
  });

function at(url: string, reference: string): string {
  return `${new URL(url).host}/${REPOSITORY}${reference}`;
}
