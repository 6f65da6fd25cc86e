// What operators do to a release, and a cluster to itself, while Pods start.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import type { Cluster } from './cluster.ts';
import { workloadImage } from './image.ts';
import { API_SERVER } from './kubeconfig.ts';
import { nodeAddress, nodeName } from './layout.ts';
import { eventually } from './patience.ts';
import { fetchersOf, startPods } from './pods.ts';
import { CERTS_DIR, configFor, NAMESPACE, Release } from './release.ts';
import { startCluster } from './start-cluster.ts';

const UPSTREAMS = ['docker.io', 'ghcr.io'];
const EDITS = 10;
const EDIT_LIMIT_MS = 10_000;
/** Images that are started during an upgrade, two at a time. */
const LOAD = 20;
const NODE_PORT = 30_500;
const POLL_MS = 5;
/** After which programs look for an API server that was away. */
const LONGEST_PAUSE_MS = 60_000;
const eventsSchema = z.object({
  items: z.array(z.object({ reason: z.string(), message: z.string().default('') })),
});

suite('a release in operation', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;

  before(async () => {
    cluster = await startCluster({ s3: true });
    release = await Release.prepare(cluster, UPSTREAMS);
    await release.install();
    await release.configured();
  });
  after(() => cluster.stop());

  const publish = async (name: string): Promise<void> => {
    await cluster.pushImage(`docker.io/library/${name}:1`, await workloadImage(name));
  };
  const fetchers = (name: string): Promise<readonly string[]> =>
    fetchersOf(cluster, 'docker.io', `library/${name}`);
  /** Resolves with the time when the file of quay.io is there, or is not, on every node. */
  const quayIs = async (there: boolean, patienceMs = EDIT_LIMIT_MS): Promise<number> => {
    const files = cluster.nodes.map(({ name }) => cluster.path(name, `${CERTS_DIR}/quay.io/hosts.toml`));
    await eventually(
      `quay.io is ${there ? 'there' : 'gone'}`,
      () => files.every((file) => existsSync(file) === there),
      patienceMs,
      POLL_MS,
    );
    return Date.now();
  };

  test('brings every edit to the disks of all nodes within seconds', async (t) => {
    const took: number[] = [];
    for (let count = 0; count < EDITS; count++) {
      const add = count % 2 === 0;
      const done = quayIs(add);
      const answered = await edit(cluster, configFor(add ? [...UPSTREAMS, 'quay.io'] : UPSTREAMS));
      took.push(Math.max(0, (await done) - answered));
    }
    const sorted = took.toSorted((a, b) => a - b);
    t.diagnostic(`edit to disk: median ${sorted[EDITS / 2]} ms, longest ${sorted.at(-1)} ms`);
    assert.ok(Math.max(...took) < EDIT_LIMIT_MS);
  });

  test('starts every Pod while helm upgrade replaces agents and registries', async (t) => {
    const names = Array.from({ length: LOAD }, (_, index) => `load-${index}`);
    await Promise.all(names.map(publish));
    const before = await podsOf();
    let isDone = false;
    const upgrade = upgradeAll().finally(() => {
      isDone = true;
    });
    let during = 0;
    for (let count = 0; count < LOAD; count += 2) {
      const pair = names.slice(count, count + 2).map((name, index) => wanted(name, nodeName(index + 1)));
      await startPods(cluster, ...pair);
      if (!isDone) during += pair.length;
    }
    await upgrade;
    for (const pod of await podsOf()) assert.ok(!before.includes(pod), `${pod} was replaced`);
    const sources = await Promise.all(names.map(fetchers));
    const direct = sources.filter((source) => !source.includes('mirror')).length;
    t.diagnostic(`${during} of ${LOAD} Pods started during the upgrade, ${direct} without the mirror`);
    assert.ok(during >= 4, 'there was load');
    const { items } = eventsSchema.parse(JSON.parse(await cluster.kubectl('get', 'events', '--output=json')));
    assert.deepEqual(
      items.filter(({ reason, message }) => reason === 'Failed' || /ErrImagePull|BackOff/.test(message)),
      [],
    );
  });

  test('goes on while the API server hangs, and an agent that starts then keeps the files', async () => {
    const files = await release.nodeFiles('node1');
    await publish('apiless');
    await cluster.exec('control-plane', 'pkill', '-STOP', '-x', 'kube-apiserver');
    try {
      await cluster.exec('node1', 'pkill', '-KILL', '-f', '[m]ain.js agent');
      await eventually('the new agent has the door', async () => (await release.doorAnswer('node1')) === 503);
      assert.equal(await release.nodeFiles('node1'), files);
      await cluster.pull('node1', 'docker.io/library/apiless:1');
      assert.deepEqual(await fetchers('apiless'), ['node1'], 'the door knows no replica');
      await cluster.pull('node2', 'docker.io/library/apiless:1');
      assert.deepEqual(await fetchers('apiless'), ['mirror', 'node1']);
    } finally {
      await cluster.exec('control-plane', 'pkill', '-CONT', '-x', 'kube-apiserver');
    }
  });

  test('takes in an edit that is made as soon as the API server is back', async (t) => {
    const added = quayIs(true, LONGEST_PAUSE_MS);
    const answered = await edit(cluster, configFor([...UPSTREAMS, 'quay.io']));
    t.diagnostic(`edit to disk after a hang: ${(await added) - answered} ms`);
    await eventually('the door knows a replica', async () => (await release.doorAnswer('node1')) === 200);
    await cluster.exec('control-plane', 'pkill', '-KILL', '-x', 'kube-apiserver');
    await eventually('the API server is back', async () => (await cluster.kubectl('get', 'nodes')) !== '');
    const again = await edit(cluster, configFor(UPSTREAMS));
    const taken = await quayIs(false, LONGEST_PAUSE_MS);
    t.diagnostic(`edit to disk after a restart of the API server: ${taken - again} ms`);
  });

  test('asks the other replica when a node with one is gone', async () => {
    const nodes = '--output=jsonpath={.items[*].spec.nodeName}';
    const selector = '--selector=app.kubernetes.io/component=registry';
    const replicas = await release.kubectl('get', 'pods', selector, nodes);
    await publish('half');
    await cluster.powerOff('node2');
    try {
      await startPods(cluster, wanted('half', 'node1'));
    } finally {
      await cluster.powerOn('node2');
    }
    // They are spread over the nodes where that can be.
    assert.deepEqual(await fetchers('half'), [replicas.includes('node1') ? 'mirror' : 'node1']);
    await eventually('the node is back', async () => (await release.doorAnswer('node2')) === 200);
  });

  test('has nodes ask the Service, a node port or a URL instead of the door', async () => {
    const nodePort = [`nodePort.enabled=true,nodePort.port=${NODE_PORT}`];
    const clusterIp = await release.kubectl('get', 'service', 'weir', '--output=jsonpath={.spec.clusterIP}');
    const url = `http://${nodeAddress(1)}:${NODE_PORT}`;
    for (const [name, values, expected] of [
      ['service', ['mirrorAddress=service'], `http://${clusterIp}:5000`],
      ['nodeport', ['mirrorAddress=nodePort', ...nodePort], `http://${nodeAddress(2)}:${NODE_PORT}`],
      ['url', [`mirrorAddress=${url}`, ...nodePort], url],
    ] as const) {
      await publish(name);
      await release.install('--wait=false', `--set=${['agent.maxUnavailable=100%', ...values].join(',')}`);
      await eventually('the file names it', async () =>
        (await release.hostsFile('node2', 'docker.io')).includes(`[host."${expected}"]`),
      );
      await release.kubectl('rollout', 'status', 'deployment/weir-registry', '--timeout=60s');
      // kube-proxy hears of replicas that come and go a moment later, and nothing stands in for one that is gone.
      await eventually('it leads to replicas', () => answers('node2', expected));
      await startPods(cluster, wanted(name, 'node2'));
      assert.deepEqual(await fetchers(name), ['mirror'], expected);
    }
  });

  /** Whether each of ten connections is answered. */
  async function answers(node: string, url: string): Promise<boolean> {
    const script = `Promise.all(Array.from({ length: 10 }, () => fetch('${url}/v2/')))
      .then((all) => console.log(all.every(({ status }) => status === 200)))`;
    return (await cluster.exec(node, 'node', '--eval', script)) === 'true\n';
  }

  /** Helm waits for as many Pods as may not be missing; this, for all of them. */
  async function upgradeAll(): Promise<void> {
    const round = ['agent', 'registry', 'webhook'].map((what) => `${what}.podAnnotations.round=2`);
    await release.install(`--set-string=${round.join(',')}`);
    for (const what of ['daemonset/weir-agent', 'deployment/weir-registry', 'deployment/weir-webhook'])
      await release.kubectl('rollout', 'status', what, '--timeout=60s');
  }

  async function podsOf(): Promise<readonly string[]> {
    const names = await release.kubectl('get', 'pods', '--output=name');
    return names.trim().split('\n');
  }
});

function wanted(name: string, node: string) {
  return { name, node, image: `${name}:1` };
}

/** Edits the live ConfigMap; when the API server had answered. */
async function edit(cluster: Cluster, text: string): Promise<number> {
  const script = `
    const [url, body] = process.argv.slice(1);
    const token = require('node:fs').readFileSync('/etc/kubernetes/admin.token', 'utf8').trim();
    const headers = { authorization: 'Bearer ' + token, 'content-type': 'application/merge-patch+json' };
    fetch(url, { method: 'PATCH', headers, body }).then(async (answer) => {
      console.log(Date.now());
      if (!answer.ok) throw new Error(await answer.text());
    });`;
  const url = `${API_SERVER}/api/v1/namespaces/${NAMESPACE}/configmaps/weir`;
  const body = JSON.stringify({ data: { 'config.yaml': text } });
  const trust = `NODE_EXTRA_CA_CERTS=${join(cluster.directory, 'authority', 'ca.crt')}`;
  return Number(await cluster.exec('control-plane', 'env', trust, 'node', '--eval', script, url, body));
}
