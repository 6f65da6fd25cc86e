import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { suite, type TestContext, test } from 'node:test';
import { judge, readDoorCount } from '../../cli/door-count.ts';
import { portOf, until } from '../agent/scripted-replica.ts';
import { type ApiObject, ScriptedApi } from '../kubernetes/scripted-api.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');
const PODS = '/api/v1/namespaces/weir/pods';
const DAEMON_SET = '/apis/apps/v1/namespaces/weir/daemonsets/weir-agent';
const IMAGE = 'registry.k8s.io/pause:3.10';

/** What kubelet says once it has the image. */
const RUNS = { containerStatuses: [{ imageID: 'sha256:1' }] };
const waits = (reason: string, message?: string) => ({
  containerStatuses: [{ imageID: '', state: { waiting: { reason, message } } }],
});

suite('weir verify', { concurrency: 3 }, () => {
  test('is content with a node whose door passed a pull on, and leaves no Pod', async (t) => {
    const node = await prepare(t, ({ count }) => {
      count.forwarded += 2;
      return RUNS;
    });
    // It is about to be ready, as agents are just after they were installed.
    const agent = node.api.get(`${PODS}/agent-a`);
    node.api.set(`${PODS}/agent-a`, { ...agent, status: {} });
    const list = node.api.fault;
    let lists = 0;
    node.api.fault = (request) => {
      if (request.method === 'GET' && request.path === PODS && ++lists === 2)
        node.api.set(`${PODS}/agent-a`, agent);
      return list(request);
    };
    assert.deepEqual(await node.verify(), { code: 0, said: 'node1: pulled through the mirror\n' });
    assert.deepEqual(node.trialPods(), []);
    const made = node.api.requests.find(({ method }) => method === 'POST')?.body;
    // Whatever becomes of this command, the Pod goes with the agents.
    assert.match(JSON.stringify(made), /"ownerReferences":\[\{[^\]]*"name":"weir-agent","uid":"u-1"/);
  });

  test('tells why an image was not pulled', async (t) => {
    const node = await prepare(t, () => waits('InvalidImageName', 'because'));
    assert.deepEqual(await node.verify(), { code: 1, said: `node1: ${IMAGE} was not pulled: because\n` });
    assert.deepEqual(node.trialPods(), []);
  });

  test('tries again when the agent restarted amid the pull', async (t) => {
    let pulls = 0;
    const node = await prepare(t, ({ count }) => {
      pulls += 1;
      if (pulls === 1) Object.assign(count, { startedAt: count.startedAt + 9, forwarded: 0, no_replica: 0 });
      else count.forwarded += 1;
      return RUNS;
    });
    node.count.forwarded = 40;
    assert.deepEqual(await node.verify(), { code: 0, said: 'node1: pulled through the mirror\n' });
    assert.equal(pulls, 2);
  });

  test('removes its Pod when it is told to stop', async (t) => {
    const node = await prepare(t, () => waits('ContainerCreating'));
    const command = node.start();
    await until(() => node.trialPods().length === 1);
    command.kill('SIGTERM');
    await once(command, 'close');
    assert.equal(command.exitCode, 1);
    assert.deepEqual(node.trialPods(), []);
  });

  test('gives up in time, and names agents that are on no node or not ready', async (t) => {
    const node = await prepare(t, () => waits('ContainerCreating'));
    node.api.set(`${PODS}/agent-b`, { metadata: { labels: { app: 'weir' } }, spec: {} });
    node.api.set(`${PODS}/agent-c`, { metadata: { labels: { app: 'weir' } }, spec: { nodeName: 'node3' } });
    const { code, said } = await node.verify('--timeout', '2');
    assert.equal(code, 1);
    assert.deepEqual(said.split('\n').toSorted(), [
      '',
      'agent-b: this agent was not put on a node yet',
      'node1: not pulled within 2 s',
      'node3: its agent agent-c is not ready',
    ]);
    assert.deepEqual(node.trialPods(), []);
  });
});

test('the counts of a door before and after a pull tell what came of it', () => {
  assert.equal(said(metrics(1, 5), metrics(1, 6)), 'true pulled through the mirror');
  assert.equal(said(metrics(1, 5), metrics(2, 6)), 'restarted');
  assert.match(
    said(metrics(1, 5), metrics(1, 5)),
    /^false i was pulled, but the runtime did not ask the mirror/,
  );
  assert.match(said(metrics(1, 5), metrics(1, 5, 2)), /^false i was pulled, but not .*: it said no_replica$/);
  const none = 'process_start_time_seconds 1\n';
  assert.equal(said(none, none), 'true pulled; without a door, whether through the mirror is not known');
});

const metrics = (startedAt: number, forwarded?: number, refused = 0): string =>
  [
    `process_start_time_seconds ${startedAt}`,
    ...(forwarded === undefined ? [] : [`weir_door_requests_total{outcome="forwarded"} ${forwarded}`]),
    `weir_door_requests_total{outcome="no_replica"} ${refused}`,
    '',
  ].join('\n');
const said = (before: string, after: string): string => {
  const verdict = judge(readDoorCount(before), readDoorCount(after), 'i');
  return verdict === 'restarted' ? verdict : `${verdict.isGood} ${verdict.text}`;
};

interface Count {
  startedAt: number;
  forwarded: number;
  no_replica: number;
}

/** A node with an agent that counts, in a cluster whose kubelet does with a trial Pod what it is told. */
async function prepare(t: TestContext, kubelet: (node: { readonly count: Count }) => object) {
  const api = await ScriptedApi.start(t);
  const count: Count = { startedAt: 1000, forwarded: 5, no_replica: 5 };
  const metrics = createServer((_, response) => {
    const { startedAt, forwarded, no_replica } = count;
    const door = `weir_door_requests_total{outcome="forwarded"} ${forwarded}\nweir_door_requests_total{outcome="no_replica"} ${no_replica}\n`;
    response.end(`process_start_time_seconds ${startedAt}\n${door}`);
  }).listen(0, '127.0.0.1');
  await once(metrics, 'listening');
  t.after(() => metrics.close());

  api.set(DAEMON_SET, { metadata: { uid: 'u-1' }, spec: { selector: { matchLabels: { app: 'weir' } } } });
  api.set(`${PODS}/agent-a`, {
    metadata: { labels: { app: 'weir' } },
    spec: { nodeName: 'node1' },
    status: { hostIP: '127.0.0.1', conditions: [{ type: 'Ready', status: 'True' }] },
  });
  const handled = new Set<string>();
  api.fault = ({ method, path }) => {
    const pod: ApiObject | undefined = api.get(path);
    if (
      method === 'GET' &&
      path.startsWith(`${PODS}/weir-verify-`) &&
      pod !== undefined &&
      !handled.has(path)
    ) {
      handled.add(path);
      api.set(path, { ...pod, status: kubelet({ count }) });
    }
    return false;
  };
  const start = (...flags: readonly string[]): ChildProcess & { stdout: NodeJS.ReadableStream } => {
    const more = ['--metrics-port', String(portOf(metrics)), '--image', IMAGE, ...flags];
    return spawn(process.execPath, [MAIN, 'verify', '--daemon-set', 'weir/weir-agent', ...more], {
      env: { ...process.env, KUBECONFIG: api.kubeconfig },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  };
  return {
    api,
    count,
    trialPods: () => api.names(PODS).filter((name) => name.startsWith('weir-verify-')),
    start,
    async verify(...flags: readonly string[]): Promise<{ code: number | null; said: string }> {
      const command = start(...flags);
      const [said] = await Promise.all([text(command.stdout), once(command, 'close')]);
      return { code: command.exitCode, said };
    },
  };
}
