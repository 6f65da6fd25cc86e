// Nodes whose containerds are configured unlike one another, and a mirror that falls ill: what the agents make of it.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import type { Cluster } from './cluster.ts';
import { workloadImage } from './image.ts';
import { eventually } from './patience.ts';
import { fetchersOf, startPods } from './pods.ts';
import { Release } from './release.ts';
import { startCluster } from './start-cluster.ts';

/** Goes by its own default, the list that it takes for one path. */
const TRAPPED = 'node1';
/** Has mirrors of its own, next to which config_path may not be. */
const BLOCKED = 'node2';
const MIRRORS = `[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'example.com']
endpoint = ['https://mirror.example.com']
`;

suite('the nodes of a cluster that are not alike', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;
  const original = new Map<string, string>();

  before(async () => {
    cluster = await startCluster({ registries: { [TRAPPED]: '', [BLOCKED]: MIRRORS } });
    release = await Release.prepare(cluster);
    for (const { name } of cluster.nodes) original.set(name, await release.nodeFiles(name));
    await release.install();
    await release.configured(TRAPPED);
  });
  after(() => cluster.stop());

  const pull = async (name: string, node: string): Promise<readonly string[]> => {
    await cluster.pushImage(`docker.io/library/${name}:1`, await workloadImage(name));
    await startPods(cluster, { name, node, image: `${name}:1` });
    return fetchersOf(cluster, 'docker.io', `library/${name}`);
  };
  const upstreams = (node: string): Promise<string> => release.annotation(node, 'upstreams');

  test('pull through the mirror although containerd takes its default list for one path', async () => {
    assert.deepEqual(await pull('trapped', TRAPPED), ['mirror']);
    await eventually(
      'the proof is in',
      async () => (await release.annotation(TRAPPED, 'proof')) === 'proven',
    );
  });

  test('are left alone where containerd would not take it, with the reason and what to do', async () => {
    await eventually('it falls back', async () => (await release.label(BLOCKED)) === 'fallback');
    assert.match(await release.reason(BLOCKED), /registries are configured by .*mirrors.*hosts\.toml files/);
    assert.match(await upstreams(BLOCKED), /"docker\.io":"unsupported"/);
    assert.equal(await release.nodeFiles(BLOCKED), original.get(BLOCKED));
  });

  test('go to the upstreams while the mirror is ill, and come back', async () => {
    await release.kubectl('scale', 'deployment/weir-registry', '--replicas=0');
    await eventually('the entries are withdrawn', async () =>
      (await upstreams(TRAPPED)).includes('"docker.io":"withdrawn"'),
    );
    assert.equal(await release.hostsFile(TRAPPED, 'docker.io'), '');
    assert.match(await release.reason(TRAPPED), /the mirror is ill/);
    assert.deepEqual(await pull('ill', TRAPPED), [TRAPPED]);
    await release.kubectl('scale', 'deployment/weir-registry', '--replicas=1');
    await release.configured(TRAPPED);
    assert.deepEqual(await pull('well', TRAPPED), ['mirror']);
  });

  test('are as they were when weir leaves, in every directory', async () => {
    await release.uninstall();
    for (const { name } of cluster.nodes)
      assert.equal(await release.nodeFiles(name), original.get(name), name);
    assert.ok(!existsSync(cluster.path(TRAPPED, '/etc/containerd/certs.d:')));
  });
});
