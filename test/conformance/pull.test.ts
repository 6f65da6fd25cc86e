// The conformance suite of the OCI distribution specification, as far as it is about pulls, against `weir
// registry` in front of real registries.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { startUpstream } from '../containerd/upstream.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { startArtifactRegistry } from './artifact-registry.ts';
import { type Case, runSuite, type Settings } from './conformance-suite.ts';
import { type Front, startFront } from './front.ts';
import { startWeirRegistry, type WeirRegistry } from './weir.ts';

/** What weir does not offer, and what no upstream here takes. */
const PULL_ONLY: Settings = {
  OCI_VERSION: '1.1',
  OCI_API_TAGS_LIST: 'false',
  OCI_API_TAGS_DELETE: 'false',
  OCI_API_MANIFESTS_DELETE: 'false',
  OCI_API_BLOBS_DELETE: 'false',
  OCI_API_BLOBS_DIGEST_HEADER: 'true',
  OCI_API_MANIFESTS_DIGEST_HEADER: 'true',
  OCI_DATA_SHA512: 'false',
};

interface Scene {
  readonly upstream: string;
  start: (scratch: string) => Promise<{ readonly endpoint: string; down: () => Promise<void> }>;
  readonly settings: Settings;
  /** Cases that have to be among those that passed. */
  readonly expected: readonly RegExp[];
  /** Cases of pushes that the upstream itself does not pass; weir has no part in them. */
  readonly exempt: readonly string[];
}

const PULLS = [
  /^image\/head\/manifest-head-by-tag$/,
  /^image\/pull\/manifest-by-digest$/,
  /^nested-index\/pull\/manifest-by-tag$/,
  /^large-manifest\/pull\/manifest-by-tag$/,
  /^data-field\/pull\/blob-get$/,
  /^sha256 blobs\/range requests\//,
  /^missing-manifest\/by-tag$/,
];

const scenes: readonly Scene[] = [
  {
    upstream: 'the reference registry',
    start: (scratch) => startUpstream('docker.io', scratch),
    // It has no referrers API, and refuses layers that are to be had elsewhere.
    settings: { OCI_API_REFERRER: 'false', OCI_DATA_NONDISTRIBUTABLE: 'false' },
    expected: PULLS,
    exempt: [],
  },
  {
    upstream: 'a registry with the referrers API',
    start: () => startArtifactRegistry('conformance/repo1'),
    settings: {},
    expected: [
      ...PULLS,
      /^non-distributable-layers\/pull\/manifest-by-tag$/,
      /^empty\/referrers$/,
      /^artifacts-with-subject\/referrers$/,
      /^index-with-subject\/referrers$/,
      /^missing-subject\/referrers$/,
    ],
    exempt: [
      'sha256 blobs/mount missing/blob-mount',
      'sha256 blobs/chunked out-of-order and put chunk/blob-patch-chunked',
      'sha256 blobs/bad digest post only/blob-post-only',
      'invalid-digest-format/manifest-put',
    ],
  },
];

for (const scene of scenes)
  suite(`weir in front of ${scene.upstream} conforms to the distribution specification`, () => {
    let scratch: string;
    let upstream: Awaited<ReturnType<Scene['start']>>;
    let weir: WeirRegistry;
    let front: Front;

    before(async () => {
      scratch = await makeScratch();
      upstream = await scene.start(scratch);
      weir = await startWeirRegistry(scratch, upstream.endpoint);
      front = await startFront({ weir: weir.url, upstream: upstream.endpoint });
    });
    after(async () => {
      await front.close();
      await weir.stop();
      await upstream.down();
      await removeScratch(scratch);
    });

    const run = async (name: string, settings: Settings): Promise<Case[]> => {
      const results = join(scratch, name);
      await mkdir(results);
      return runSuite({ registry: front.host, results, settings: { ...PULL_ONLY, ...settings } });
    };

    test('with what was pushed to the upstream a moment ago', async () => {
      const cases = await run('fresh', scene.settings);
      assert.deepEqual(failuresOf(cases, scene.exempt), []);
      const passed = cases.filter(({ status }) => status === 'passed');
      for (const name of scene.expected)
        assert.ok(
          passed.some((one) => name.test(one.name)),
          `${name} is among the ${passed.length} cases that passed`,
        );
      assert.ok(front.pulls.length > 100, `${front.pulls.length} pulls went to weir`);
    });

    test('with the upstream away', async () => {
      const pulled = front.pulls.filter(({ status }) => status === 200).map(({ path }) => path);
      const of = (kind: RegExp): string => {
        const found = new Set(pulled.flatMap((path) => kind.exec(path)?.[1] ?? []));
        assert.notEqual(found.size, 0, String(kind));
        return [...found].join(' ');
      };
      await upstream.down();
      const cases = await run('away', {
        ...scene.settings,
        OCI_API_PUSH: 'false',
        // The suite does not look at the headers of manifests whose bytes it does not know.
        OCI_API_MANIFESTS_DIGEST_HEADER: 'false',
        OCI_RO_DATA_TAGS: of(/^\/v2\/conformance\/repo1\/manifests\/([^:]+)$/),
        OCI_RO_DATA_MANIFESTS: of(/^\/v2\/conformance\/repo1\/manifests\/(sha256:\w+)$/),
        OCI_RO_DATA_BLOBS: of(/^\/v2\/conformance\/repo1\/blobs\/(sha256:\w+)$/),
        ...(scene.settings['OCI_API_REFERRER'] === 'false'
          ? {}
          : { OCI_RO_DATA_REFERRERS: of(/^\/v2\/conformance\/repo1\/referrers\/(sha256:\w+)$/) }),
        // What the upstream has to deny is not what is asked for here.
        OCI_FILTER_TEST: 'OCI Conformance Test/read-only',
      });
      assert.deepEqual(failuresOf(cases, []), []);
      assert.ok(cases.filter(({ status }) => status === 'passed').length > 100);
    });
  });

function failuresOf(cases: readonly Case[], exempt: readonly string[]): string[] {
  return cases
    .filter(({ status, name }) => (status === 'failure' || status === 'error') && !exempt.includes(name))
    .map(({ name, reason }) => `${name}: ${reason}`);
}
