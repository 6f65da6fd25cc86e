import assert from 'node:assert/strict';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { connectKubernetes } from '../../kubernetes/client.ts';
import type { NodeReport } from '../../kubernetes/node-annotations.ts';
import { eventReason, type NodeEventReason, NodeEvents } from '../../kubernetes/node-events.ts';
import { NodeReporter } from '../../kubernetes/node-report.ts';
import { until } from '../agent/scripted-replica.ts';
import { ScriptedApi } from './scripted-api.ts';

const NODE = '/api/v1/nodes/node1';
const EVENTS = '/api/v1/namespaces/default/events';
const configHash = 'abcdef0123456789';
const upstreams = new Map([['docker.io', 'configured']]);
const CONFIGURED: NodeReport = {
  mirror: 'configured',
  configHash,
  isDoorOpen: false,
  reasons: new Map(),
  upstreams,
};
const FALLBACK: NodeReport = {
  mirror: 'fallback',
  configHash,
  isDoorOpen: false,
  reasons: new Map(),
  upstreams,
  reason: 'quay.io: failed: no space',
};
const BYPASSED: NodeReport = { ...FALLBACK, proof: 'bypassed', reason: 'the runtime does not ask' };

const event = z.object({
  type: z.string(),
  reason: z.string(),
  message: z.string(),
  involvedObject: z.object({ kind: z.string(), name: z.string() }),
});

test('a node that comes to another state has one Event, with the reason', async (t) => {
  const { reporter, told } = await reporting(t, { labels: { 'weir.dev/mirror': 'configured' } });
  reporter.report(FALLBACK);
  await until(() => told().length === 1);
  reporter.report({ ...FALLBACK, configHash: '1'.repeat(16) });
  reporter.report(CONFIGURED);
  await until(() => told().length === 2);
  assert.deepEqual(told(), [
    {
      type: 'Warning',
      reason: 'MirrorFallback',
      message: 'quay.io: failed: no space',
      involvedObject: { kind: 'Node', name: 'node1' },
    },
    {
      type: 'Normal',
      reason: 'MirrorConfigured',
      message: 'pulls of every configured upstream go as the configuration says',
      involvedObject: { kind: 'Node', name: 'node1' },
    },
  ]);
});

test('an agent that starts on a node tells nothing that the node says already', async (t) => {
  const { reporter, told, written } = await reporting(t, {
    labels: { 'weir.dev/mirror': 'fallback' },
    annotations: { 'weir.dev/proof': 'bypassed' },
  });
  reporter.report(BYPASSED);
  await until(() => written() !== undefined);
  reporter.report(CONFIGURED);
  await until(() => told().length > 0);
  assert.deepEqual(
    told().map(({ reason }) => reason),
    ['MirrorConfigured'],
  );
});

test('an agent that starts tells that the node is in another state than it was left in', async (t) => {
  const { reporter, told } = await reporting(t, {
    labels: { 'weir.dev/mirror': 'fallback' },
    annotations: { 'weir.dev/upstreams': '{"docker.io":"withdrawn"}' },
  });
  reporter.report(FALLBACK);
  await until(() => told().length === 1);
  assert.equal(told()[0]?.reason, 'MirrorFallback');
});

test('a node that flaps has one Event until it has rested', async (t) => {
  const { api, reporter, told, written } = await reporting(t, {}, 600_000);
  reporter.report(CONFIGURED);
  await until(() => told().length === 1);
  for (let turn = 0; turn < 6; turn++) {
    const proof = String(turn);
    reporter.report({ ...(turn % 2 === 0 ? FALLBACK : CONFIGURED), proof });
    await until(() => written() === proof);
  }
  assert.equal(told().length, 1);
  assert.equal(api.requests.filter(({ path }) => path === EVENTS).length, 1);
});

test('nothing is told of a node that could not be written', async (t) => {
  const { api, reporter, told } = await reporting(t, { labels: { 'weir.dev/mirror': 'configured' } });
  let refusals = 0;
  api.fault = ({ method, response }) => {
    if (method !== 'PATCH') return false;
    refusals += 1;
    response.writeHead(403).end();
    return true;
  };
  reporter.report(FALLBACK);
  await until(() => refusals > 0);
  await reporter.close();
  assert.deepEqual(told(), []);
});

test('the state of a node is that of its worst', () => {
  assert.equal(state('off', []), 'MirrorOff');
  assert.equal(state('off', [], 'bypassed'), 'MirrorOff');
  assert.equal(state('configured', ['configured'], 'proven'), 'MirrorConfigured');
  assert.equal(state('fallback', ['bypassed'], 'bypassed'), 'MirrorBypassed');
  assert.equal(state('fallback', ['configured', 'withdrawn', 'overridden']), 'MirrorWithdrawn');
  assert.equal(state('configured', ['configured', 'withdrawn']), 'MirrorWithdrawn');
  assert.equal(state('fallback', ['unsupported', 'withdrawn']), 'MirrorFallback');
  assert.equal(state('fallback', []), 'MirrorFallback');
});

function state(mirror: NodeReport['mirror'], states: readonly string[], proof?: string): NodeEventReason {
  const upstreams = new Map(states.map((one, index) => [`${index}.example`, one]));
  return eventReason({ mirror, upstreams, ...(proof === undefined ? {} : { proof }) });
}

async function reporting(t: TestContext, metadata: Readonly<Record<string, unknown>>, restMs = 1) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(NODE, { metadata });
  const kubernetes = connectKubernetes('test');
  const log = pino({ level: 'silent' });
  const events = new NodeEvents({ kubernetes, node: 'node1', reporter: 'test', log, restMs });
  const reporter = new NodeReporter(kubernetes, 'node1', log, { events, gatherMs: 1 });
  t.after(() => reporter.close());
  const annotations = z.record(z.string(), z.string()).optional();
  return {
    api,
    reporter,
    told: () => api.names(EVENTS).map((name) => event.parse(api.get(`${EVENTS}/${name}`))),
    /** The proof that the node says. */
    written: () => annotations.parse(api.get(NODE)?.metadata?.['annotations'])?.['weir.dev/proof'],
  };
}
