// Nodes whose containerds are configured unlike one another, and a mirror that falls ill: what the agents make of it.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { z } from 'zod';
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

const podsSchema = z.object({
  items: z.array(
    z.object({ metadata: z.object({ name: z.string() }), spec: z.object({ nodeName: z.string() }) }),
  ),
});
type Pods = z.infer<typeof podsSchema>;
const eventsSchema = z.object({
  items: z.array(z.object({ involvedObject: z.object({ name: z.string() }), message: z.string() })),
});

/** Of Pods that pull whatever is there. */
function deployment(name: string, replicas: number): object {
  const labels = { crowd: name };
  const container = { name: 'main', image: `${name}:1`, imagePullPolicy: 'Always' };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { containers: [container], terminationGracePeriodSeconds: 1 },
      },
    },
  };
}

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

  test('have the images of their Pods rewritten there and nowhere else, for a hundred Pods at once', async () => {
    const name = 'crowd';
    await eventually('the webhook is registered', async () =>
      (await cluster.kubectl('get', 'mutatingwebhookconfigurations', '--output=name')).includes('weir'),
    );
    // The webhook waits 300 ms for a mirror that has it: the first look at an image may take longer.
    assert.deepEqual(await pull(name, TRAPPED), ['mirror']);
    await cluster.apply([deployment(name, 100)]);
    const pods = async (): Promise<Pods['items']> => {
      const list = await cluster.kubectl('get', 'pods', `--selector=crowd=${name}`, '--output=json');
      return podsSchema.parse(JSON.parse(list)).items;
    };
    const pulled = async (): Promise<ReadonlyMap<string, readonly string[]>> => {
      const list = await cluster.kubectl('get', 'events', '--field-selector=reason=Pulling', '--output=json');
      const { items } = eventsSchema.parse(JSON.parse(list));
      return Map.groupBy(items, ({ involvedObject }) => involvedObject.name)
        .entries()
        .reduce(
          (map, [pod, events]) =>
            map.set(
              pod,
              events.map(({ message }) => /"(.*)"/.exec(message)?.[1] ?? ''),
            ),
          new Map<string, readonly string[]>(),
        );
    };
    await eventually(
      'every Pod pulls',
      async () => {
        const images = await pulled();
        const all = await pods();
        return all.length === 100 && all.every(({ metadata }) => images.has(metadata.name));
      },
      120_000,
    );
    const images = await pulled();
    const nodes = new Map<string, Set<string>>();
    for (const { metadata, spec } of await pods())
      nodes.set(
        spec.nodeName,
        new Set([...(nodes.get(spec.nodeName) ?? []), ...(images.get(metadata.name) ?? [])]),
      );
    assert.deepEqual([...(nodes.get(TRAPPED) ?? [])], [`${name}:1`]);
    assert.deepEqual(
      [...(nodes.get(BLOCKED) ?? [])],
      [`127.0.0.1:5700/docker.io/library/${name}:1`],
      await cluster.kubectl('get', 'events', '--field-selector=reason=ImageNotRewritten'),
    );
    assert.deepEqual(await fetchersOf(cluster, 'docker.io', `library/${name}`), ['mirror']);
    await cluster.kubectl('delete', 'deployment', name, '--cascade=foreground');
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
