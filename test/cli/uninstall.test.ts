import assert from 'node:assert/strict';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { refuse, ScriptedApi } from '../kubernetes/scripted-api.ts';
import { weir } from '../support/weir-command.ts';

const DAEMON_SET = '/apis/apps/v1/namespaces/weir/daemonsets/weir-agent';
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
});

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
