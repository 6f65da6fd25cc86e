// What nodes go through in their lives, with weir on them from values that say almost nothing: the store is in the
// registry's Pod.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, suite, test } from 'node:test';
import type { Cluster, Place } from './cluster.ts';
import { workloadImage } from './image.ts';
import { CONTAINERD_ENVIRONMENT } from './node.ts';
import { eventually } from './patience.ts';
import { fetchersOf, startPods } from './pods.ts';
import { CERTS_DIR, CHART, Release } from './release.ts';
import { startCluster } from './start-cluster.ts';

const OWN_FILE = `${CERTS_DIR}/ghcr.io/hosts.toml`;
const OWN_TEXT = '# our own\nserver = "https://ghcr.io"\n';
const WAIT = '--timeout=60s';

suite('the nodes of a cluster with weir', { concurrency: false }, () => {
  let cluster: Cluster;
  let release: Release;
  const original = new Map<string, string>();

  before(async () => {
    cluster = await startCluster({ laterNodes: 1, files: { node1: { [OWN_FILE]: OWN_TEXT } } });
    release = await Release.prepare(cluster);
    for (const { name } of cluster.nodes) original.set(name, await release.nodeFiles(name));
  });
  after(() => cluster.stop());

  const start = (name: string, node: string, image = `${name}:1`): Promise<void> =>
    startPods(cluster, { name, node, image });
  const publish = async (name: string): Promise<void> => {
    await cluster.pushImage(`docker.io/library/${name}:1`, await workloadImage(name));
  };
  const fetchers = (name: string): Promise<readonly string[]> =>
    fetchersOf(cluster, 'docker.io', `library/${name}`);
  const fallsBack = (node: Place): Promise<void> =>
    eventually(`${node} falls back`, async () => (await release.label(node)) === 'fallback');

  test('are left alone where the door has no port, until it is free', async () => {
    const holder = await holdPort(cluster, 'node1');
    await release.install();
    await release.configured('node2');
    await fallsBack('node1');
    assert.match(await release.reason('node1'), /127\.0\.0\.1:5700/);
    const events = await cluster.kubectl('get', 'events', '--all-namespaces', '--output=wide');
    assert.match(events, /MirrorFallback.*node1.*127\.0\.0\.1:5700/);
    assert.equal(await release.nodeFiles('node1'), original.get('node1'));
    await cluster.exec('node1', 'kill', holder);
    await release.configured('node1');
    assert.match(await release.hostsFile('node1', 'ghcr.io'), /127\.0\.0\.1:5700/);
    assert.equal(await release.reason('node1'), '');
  });

  test('pull through the mirror from the first Pod on', async () => {
    await start('web', 'node1');
    assert.deepEqual(await fetchers('web'), ['mirror']);
  });

  test('get their files back when another program took the port while the agent was away', async () => {
    const holder = await holdPort(cluster, 'node1');
    await release.kubectl('delete', await release.agentPod('node1'));
    await fallsBack('node1');
    await eventually(
      'the files are withdrawn',
      async () => (await release.nodeFiles('node1')) === original.get('node1'),
    );
    await cluster.exec('node1', 'kill', holder);
    await release.configured('node1');
    assert.notEqual(await release.hostsFile('node1', 'docker.io'), '');
  });

  test('keep their files, and pull, while the Pod of the agent is deleted', async () => {
    const files = await release.nodeFiles('node2');
    await publish('agentless');
    const pod = await release.agentPod('node2');
    await release.kubectl('delete', pod);
    assert.equal(await release.nodeFiles('node2'), files);
    await start('agentless', 'node2');
    await eventually('the door is back', async () => (await release.doorAnswer('node2')) > 0);
    assert.equal(await release.nodeFiles('node2'), files);
    assert.notEqual(await release.agentPod('node2'), pod);
  });

  test('are configured when they join later, and pull what is cached while the upstreams are cut off', async () => {
    const { name } = await cluster.addNode();
    await release.configured(name);
    assert.ok((await fetchers('weir')).includes(name), 'the image of the agent, without a mirror');
    await cluster.whileCut(() => start('joined', name, 'web:1'));
    assert.deepEqual(await fetchers('web'), ['mirror']);
    await publish('afterwards');
    await start('afterwards', name);
    assert.deepEqual(await fetchers('afterwards'), ['mirror']);
  });

  test('use the door although containerd has a proxy, and that one is dead', async () => {
    const proxy = 'http://10.99.0.1:9';
    const variables = ['HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'].map(
      (name) => `${name}=${proxy}\n`,
    );
    await writeFile(cluster.path('node3', CONTAINERD_ENVIRONMENT), `${variables.join('')}NO_PROXY=\n`);
    await restartContainerd(cluster, 'node3');
    await assert.rejects(cluster.pull('node3', 'registry.corp.example/team/web:1'), /proxyconnect/);
    await start('proxied', 'node3', 'agentless:1');
    assert.ok(!(await fetchers('agentless')).includes('node3'));
  });

  test('are as before after a reboot, and the others pull meanwhile', async () => {
    const node = await release.kubectl(
      'get',
      'pods',
      '--selector=app.kubernetes.io/component=registry',
      '--output=jsonpath={.items[0].spec.nodeName}',
    );
    const other = cluster.nodes.find(({ name }) => name !== node && name !== 'node3')?.name ?? '';
    await start('before', node, 'web:1');
    const files = await release.nodeFiles(node);
    await publish('meanwhile');
    await cluster.powerOff(node);
    await start('meanwhile', other);
    assert.deepEqual(await fetchers('meanwhile'), [other]);
    await cluster.powerOn(node);
    await eventually('the Pod runs again', async () => (await restarts('before')) > 0);
    await cluster.kubectl('wait', '--for=condition=Ready', 'pod/before', WAIT);
    await release.kubectl('rollout', 'status', 'daemonset/weir-agent', WAIT);
    await release.kubectl('rollout', 'status', 'deployment/weir-registry', WAIT);
    assert.equal(await release.nodeFiles(node), files);
    await publish('rebooted');
    await eventually('the door leads to the registry', async () => (await release.doorAnswer(node)) === 200);
    await start('rebooted', node);
    assert.deepEqual(await fetchers('rebooted'), ['mirror']);
  });

  test('pull what a claim kept over the end of the registry', async () => {
    const { name } = cluster.nodes[0] ?? { name: '' };
    await cluster.exec(name, 'install', '-d', '-o', '65532', '-g', '65532', '/var/lib/weir-store');
    await cluster.apply([volume('weir-store', name, '/var/lib/weir-store')]);
    await release.install('--set', 'persistence.enabled=true');
    await publish('kept');
    await start('kept', 'node1');
    await release.kubectl('delete', 'pod', '--selector=app.kubernetes.io/component=registry');
    await release.kubectl('rollout', 'status', 'deployment/weir-registry', WAIT);
    await eventually(
      'the door leads to the registry',
      async () => (await release.doorAnswer('node2')) === 200,
    );
    await cluster.whileCut(() => start('kept-2', 'node2', 'kept:1'));
    assert.deepEqual(await fetchers('kept'), ['mirror']);
  });

  test('refuse a second release, in a sentence', async () => {
    await assert.rejects(
      cluster.helm('install', 'second', CHART, '--namespace=other', '--create-namespace'),
      /weir is installed already, as weir-agent in the namespace weir-system/,
    );
  });

  test('go on with agents that nobody owns, which the next upgrade takes in again', async () => {
    const files = await release.nodeFiles('node1');
    const pod = await release.agentPod('node1');
    await release.kubectl('delete', 'daemonset', 'weir-agent', '--cascade=orphan');
    await publish('orphaned');
    await start('orphaned', 'node1');
    assert.deepEqual(await fetchers('orphaned'), ['mirror']);
    assert.equal(await release.nodeFiles('node1'), files);
    await release.install('--set', 'persistence.enabled=true');
    assert.equal(await release.agentPod('node1'), pod);
    // Owned again: to end is not to leave.
    await release.kubectl('delete', pod);
    assert.equal(await release.nodeFiles('node1'), files);
  });

  test('are as they were when the DaemonSet alone is deleted, even while an agent starts', async () => {
    await release.kubectl('rollout', 'status', 'daemonset/weir-agent', WAIT);
    await release.configured();
    // Too early for it to know what a signal means: process 1 is then not even ended by it.
    const [pod, pid] = await replaceAndStopAgent('node1');
    await release.kubectl('delete', 'daemonset', 'weir-agent');
    await eventually('the new agent was told to stop', async () =>
      (await release.kubectl('events', `--for=${pod}`)).includes('Stopping container agent'),
    );
    await cluster.exec('node1', 'kill', '-CONT', pid);
    for (const [name, files] of original) {
      await eventually(
        `${name} is as it was`,
        async () => (await release.nodeFiles(name)) === files && (await isForgotten(name)),
      );
    }
  });

  /** Deletes the agent's Pod, and stops the process of the next one as soon as it is there. */
  async function replaceAndStopAgent(node: Place): Promise<[pod: string, pid: string]> {
    const find = `pgrep -n -f '[m]ain.js agent'`;
    const old = (await cluster.exec(node, 'sh', '-c', find)).trim();
    const script = `until p=$(${find}) && [ "$p" != "$0" ] && kill -STOP "$p"; do :; done; echo "$p"`;
    const stopped = cluster.exec(node, 'sh', '-c', script, old);
    await release.kubectl('delete', await release.agentPod(node));
    const pid = await stopped;
    return [await release.agentPod(node), pid.trim()];
  }

  async function isForgotten(node: Place): Promise<boolean> {
    return !(await cluster.kubectl('get', 'node', node, '--output=yaml')).includes('weir.dev');
  }

  async function restarts(name: string): Promise<number> {
    const count = '{.status.containerStatuses[0].restartCount}';
    return Number(await cluster.kubectl('get', 'pod', name, `--output=jsonpath=${count}`));
  }
});

/** Takes the door's port as soon as it is free; the process that does, as the node numbers it. */
async function holdPort(cluster: Cluster, node: Place): Promise<string> {
  const script = `
    const server = require('node:net').createServer((client) => client.destroy());
    server.on('error', () => setTimeout(listen, 1));
    function listen() { server.listen(5700, '127.0.0.1'); }
    listen();`;
  const pid = await cluster.exec(node, 'sh', '-c', 'node --eval "$0" >/dev/null 2>&1 & echo $!', script);
  return pid.trim();
}

async function restartContainerd(cluster: Cluster, node: Place): Promise<void> {
  const pid = (): Promise<string> => cluster.exec(node, 'pgrep', '-x', 'containerd');
  const old = await pid();
  await cluster.exec(node, 'pkill', '-x', 'containerd');
  await eventually('containerd is back', async () => (await pid()) !== old);
  await eventually('containerd answers', async () => (await cluster.exec(node, 'ctr', 'version')) !== '');
}

/** A directory of that node, for the claim of the registry. */
function volume(name: string, node: Place, path: string): object {
  const values = [node];
  const matchExpressions = [{ key: 'kubernetes.io/hostname', operator: 'In', values }];
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name },
    spec: {
      capacity: { storage: '100Gi' },
      accessModes: ['ReadWriteOnce'],
      hostPath: { path, type: 'Directory' },
      nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions }] } },
    },
  };
}
