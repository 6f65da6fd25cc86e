// Pods without number that come at once, on a node that is configured and on one that cannot be: what their kubelets see.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import type { Cluster } from './cluster.ts';
import { workloadImage } from './image.ts';
import { eventually } from './patience.ts';
import { fetchersOf, startPods } from './pods.ts';
import { Release } from './release.ts';
import { startCluster } from './start-cluster.ts';

const CONFIGURED = 'node1';
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

suite('the nodes of a cluster, one of which cannot be configured', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;

  before(async () => {
    cluster = await startCluster({ registries: { [BLOCKED]: MIRRORS } });
    release = await Release.prepare(cluster);
    await release.install();
    await release.configured(CONFIGURED);
  });
  after(() => cluster.stop());

  /** What the webhook did, and why. */
  async function decisions(): Promise<string> {
    const ips = await release.kubectl(
      'get',
      'pods',
      '--selector=app.kubernetes.io/component=webhook',
      '--output=jsonpath={.items[*].status.podIP}',
    );
    const texts = ips.split(' ').map((ip) => {
      const script = `fetch('http://${ip}:8080/metrics').then(async (a) => console.log(await a.text()))`;
      return cluster.exec('control-plane', 'node', '--eval', script);
    });
    const lines = (await Promise.all(texts)).join('\n').split('\n');
    return lines.filter((line) => /^weir_webhook_decisions_total.* [1-9]/.test(line)).join('\n');
  }

  test('have the images of their Pods rewritten there and nowhere else, for a hundred Pods at once', async () => {
    const name = 'crowd';
    await eventually('the webhook is registered', async () =>
      (await cluster.kubectl('get', 'mutatingwebhookconfigurations', '--output=name')).includes('weir'),
    );
    // The webhook waits 300 ms for a mirror that has it: the first look at an image may take longer.
    await cluster.pushImage(`docker.io/library/${name}:1`, await workloadImage(name));
    await startPods(cluster, { name, node: CONFIGURED, image: `${name}:1` });
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
    assert.deepEqual([...(nodes.get(CONFIGURED) ?? [])], [`${name}:1`]);
    assert.deepEqual(
      [...(nodes.get(BLOCKED) ?? [])],
      [`127.0.0.1:5700/docker.io/library/${name}:1`],
      await decisions(),
    );
    assert.deepEqual(await fetchersOf(cluster, 'docker.io', `library/${name}`), ['mirror']);
    await cluster.kubectl('delete', 'deployment', name, '--cascade=foreground');
  });
});
