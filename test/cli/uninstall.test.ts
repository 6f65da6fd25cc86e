import assert from 'node:assert/strict';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { refuse, ScriptedApi } from '../kubernetes/scripted-api.ts';
import { weir } from '../support/weir-command.ts';

const DAEMON_SET = '/apis/apps/v1/namespaces/weir/daemonsets/weir-agent';
const DEPLOYMENT = '/apis/apps/v1/namespaces/weir/deployments/weir-webhook';
const REGISTRATIONS = ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'].map(
  (kind) => `/apis/admissionregistration.k8s.io/v1/${kind}/weir-webhook`,
);
const PODS = '/api/v1/namespaces/weir/pods';
const node = (name: string): string => `/api/v1/nodes/${name}`;
const READY = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
const labelled = (reason?: string) => ({
  ...READY,
  metadata: {
    labels: { 'weir.dev/mirror': 'configured' },
    annotations: { 'weir.dev/mirror-reason': reason },
  },
});

suite('weir uninstall', { concurrency: 3 }, () => {
  test('waits until every agent has left its node, although the API server falters', async (t) => {
    const api = await prepare(t, ['node1', 'node2']);
    let requests = 0;
    api.fault = ({ method, response }) => {
      if (method === 'DELETE') leave(api, ['node1', 'node2']);
      // Every other question is answered with an error.
      if (requests++ % 2 === 1) return false;
      refuse(response, 500);
      return true;
    };
    const { code, stdout, stderr } = await weir(
      'uninstall',
      '--daemon-set',
      'weir/weir-agent',
      '--timeout',
      '30',
    );
    assert.equal(code, 0, stderr);
    assert.equal(stdout, '2 nodes are as they were before weir\n');
  });

  test('names the nodes that were not restored, with what they say of it', async (t) => {
    const api = await prepare(t, ['node1', 'node2', 'node3']);
    api.set(`${PODS}/waiting`, { metadata: { labels: { app: 'weir' } }, spec: {} });
    api.set(node('node3'), { ...labelled(), status: { conditions: [{ type: 'Ready', status: 'Unknown' }] } });
    api.fault = ({ method }) => {
      if (method !== 'DELETE') return false;
      leave(api, ['node1']);
      api.set(`${PODS}/agent-node2`, undefined);
      api.set(node('node2'), labelled('not restored: docker.io: cannot write'));
      return false;
    };
    const { code, stderr } = await weir('uninstall', '--daemon-set', 'weir/weir-agent', '--timeout', '2');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /not restored: node3 \(it is not ready\), node2 \(not restored: docker\.io: cannot write\)\. An agent that still runs .* On a node without an agent, run "weir rollback"/,
    );
  });

  test('lets the rest of a release go when there are no agents, and tells what is left', async (t) => {
    const api = await prepare(t, ['node1']);
    api.set(DAEMON_SET, undefined);
    const { code, stdout } = await weir('uninstall', '--daemon-set', 'weir/weir-agent');
    assert.equal(code, 0);
    assert.match(stdout, /^there are no agents\nnode1 still has weir's label: .*"# weir"/);
  });

  test('does not wait for longer than it may', async (t) => {
    await prepare(t, ['node1']);
    const { code, stderr } = await weir('uninstall', '--daemon-set', 'weir/weir-agent', '--timeout', '0');
    assert.equal(code, 1);
    assert.match(stderr, /not restored: node1\./);
  });

  test('takes the webhook away before the agents, and what it registered after its last replica', async (t) => {
    const api = await prepare(t, ['node1']);
    api.set(DEPLOYMENT, { spec: { selector: { matchLabels: { app: 'webhook' } } } });
    api.set(`${PODS}/webhook`, { metadata: { labels: { app: 'webhook' } }, spec: { nodeName: 'node1' } });
    for (const path of REGISTRATIONS) api.set(path, {});
    const deleted: string[] = [];
    api.fault = ({ method, path, query }) => {
      if (method === 'DELETE') deleted.push(path);
      if (path === DAEMON_SET && method === 'DELETE') leave(api, ['node1']);
      // The replica leaves when it is looked for.
      if (deleted.length === 1 && path === PODS && query.get('labelSelector') === 'app=webhook') {
        deleted.push('the replica');
        api.set(`${PODS}/webhook`, undefined);
      }
      return false;
    };
    const { code, stderr } = await uninstall('--webhook', 'weir/weir-webhook');
    assert.equal(code, 0, stderr);
    assert.deepEqual(deleted, [DEPLOYMENT, 'the replica', ...REGISTRATIONS, DAEMON_SET]);
  });

  test('goes on to the agents when there is no webhook', async (t) => {
    const api = await prepare(t, ['node1']);
    api.fault = ({ method, path }) => {
      if (path === DAEMON_SET && method === 'DELETE') leave(api, ['node1']);
      return false;
    };
    const { code, stdout, stderr } = await uninstall('--webhook', 'weir/weir-webhook');
    assert.equal(code, 0, stderr);
    assert.equal(stdout, '1 node is as it was before weir\n');
  });
});

function uninstall(...flags: readonly string[]): ReturnType<typeof weir> {
  return weir('uninstall', '--daemon-set', 'weir/weir-agent', ...flags);
}

async function prepare(t: TestContext, nodes: readonly string[]): Promise<ScriptedApi> {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(DAEMON_SET, { spec: { selector: { matchExpressions: [{ key: 'app', operator: 'Exists' }] } } });
  // Of somebody else.
  api.set(`${PODS}/other`, { spec: { nodeName: 'node9' } });
  for (const name of nodes) {
    api.set(node(name), labelled());
    api.set(`${PODS}/agent-${name}`, { metadata: { labels: { app: 'weir' } }, spec: { nodeName: name } });
  }
  return api;
}

function leave(api: ScriptedApi, nodes: readonly string[]): void {
  for (const name of nodes) {
    api.set(node(name), READY);
    api.set(`${PODS}/agent-${name}`, undefined);
  }
}
