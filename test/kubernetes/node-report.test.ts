import assert from 'node:assert/strict';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { connectKubernetes } from '../../kubernetes/client.ts';
import type { NodeReport } from '../../kubernetes/node-annotations.ts';
import { NodeReporter, type NodeReporterOptions } from '../../kubernetes/node-report.ts';
import { formatUpstreams, parseUpstreams } from '../../kubernetes/node-upstreams.ts';
import { until } from '../agent/scripted-replica.ts';
import { refuse, ScriptedApi } from './scripted-api.ts';

const NODE = '/api/v1/nodes/node1';
const CONFIGURED: NodeReport = {
  mirror: 'configured',
  configHash: 'abcdef0123456789',
  isDoorOpen: false,
  reasons: new Map(),
  upstreams: new Map([
    ['quay.io', 'configured'],
    ['docker.io', 'configured'],
  ]),
};
const BAD: NodeReport = {
  mirror: 'fallback',
  configHash: 'abcdef0123456789',
  isDoorOpen: false,
  reasons: new Map([['docker.io', 'runtime']]),
  reason: 'x'.repeat(5_000),
  upstreams: new Map([['docker.io', 'unsupported']]),
};

test('a report that says nothing new is not written again', async (t) => {
  const { api, reporter, patches } = await reporting(t);
  reporter.report(CONFIGURED);
  await until(() => patches() === 1);
  for (let look = 0; look < 20; look++) {
    reporter.report(CONFIGURED);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  reporter.report(BAD);
  await until(() => patches() === 2);
  assert.deepEqual(api.get(NODE)?.metadata?.['labels'], { 'weir.dev/mirror': 'fallback' });
  assert.deepEqual(api.get(NODE)?.metadata?.['annotations'], {
    'weir.dev/config': 'abcdef012345',
    'weir.dev/mirror-reason': 'x'.repeat(1_000),
    'weir.dev/reasons': '{"docker.io":"runtime"}',
    'weir.dev/upstreams': '{"docker.io":"unsupported"}',
  });
});

test('reports that come together are one, the last', async (t) => {
  const { api, reporter, patches } = await reporting(t, { gatherMs: 100 });
  for (const proof of ['unproven', 'bypassed', 'proven']) reporter.report({ ...CONFIGURED, proof });
  await until(() => patches() > 0);
  assert.deepEqual(api.get(NODE)?.metadata?.['annotations'], {
    'weir.dev/config': 'abcdef012345',
    'weir.dev/proof': 'proven',
    'weir.dev/upstreams': '{"docker.io":"configured","quay.io":"configured"}',
  });
  assert.equal(patches(), 1);
});

test('of very many nodes each waits its turn with what comes after its first report', async (t) => {
  const many = await reporting(t, { nodes: () => 1_000_000 });
  many.reporter.report(BAD);
  await until(() => many.patches() === 1);
  many.reporter.report(CONFIGURED);
  const few = await reporting(t, { nodes: () => 1 });
  few.reporter.report(BAD);
  await until(() => few.patches() === 1);
  few.reporter.report(CONFIGURED);
  await until(() => few.patches() === 2);
  assert.equal(many.patches(), 1);
});

test('a label that somebody took away is back after a while', async (t) => {
  const { api, reporter, patches } = await reporting(t, { againMs: 50 });
  reporter.report(CONFIGURED);
  await until(() => patches() === 1);
  api.set(NODE, { metadata: {} });
  await until(() => patches() === 2);
  assert.deepEqual(api.get(NODE)?.metadata?.['labels'], { 'weir.dev/mirror': 'configured' });
});

test('the newest report is written once the API server takes it, and the one before it never', async (t) => {
  const { api, reporter, patches } = await reporting(t);
  api.fault = ({ response }) => {
    refuse(response, 429);
    return true;
  };
  reporter.report(BAD);
  await until(() => patches() === 1);
  reporter.report(CONFIGURED);
  api.fault = () => false;
  await until(() => patches() === 2);
  assert.deepEqual(api.get(NODE)?.metadata?.['labels'], { 'weir.dev/mirror': 'configured' });
});

test('the last word is said although the API server falters, and nothing after it', async (t) => {
  const { api, reporter } = await reporting(t);
  reporter.report(CONFIGURED);
  let falters = 2;
  api.fault = ({ response }) => {
    if (falters-- <= 0) return false;
    refuse(response, 500);
    return true;
  };
  await reporter.conclude();
  reporter.report(CONFIGURED);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(api.get(NODE)?.metadata?.['labels'], {});
  assert.deepEqual(api.get(NODE)?.metadata?.['annotations'], {});
});

test('a node says that its door is open as long as that holds, and no longer than the agent runs', async (t) => {
  const { api, reporter, patches } = await reporting(t);
  reporter.report({ ...CONFIGURED, isDoorOpen: true });
  await until(() => patches() === 1);
  assert.equal(annotations(api)['weir.dev/door'], 'open');
  reporter.report(CONFIGURED);
  await until(() => patches() === 2);
  assert.equal('weir.dev/door' in annotations(api), false);
  reporter.report({ ...CONFIGURED, isDoorOpen: true });
  await until(() => patches() === 3);
  await reporter.part();
  assert.deepEqual(annotations(api), {
    'weir.dev/config': 'abcdef012345',
    'weir.dev/upstreams': '{"docker.io":"configured","quay.io":"configured"}',
  });
});

test('an agent that stops does not wait for an API server that says nothing', async (t) => {
  const { api, reporter, patches } = await reporting(t);
  reporter.report({ ...CONFIGURED, isDoorOpen: true });
  await until(() => patches() === 1);
  api.fault = () => true;
  await reporter.part();
  assert.equal(annotations(api)['weir.dev/door'], 'open');
});

test('the states of very many upstreams fit into an annotation, those that matter first', () => {
  const mixed = many(2_000, (index) => (index % 100 === 0 ? 'failed' : 'configured'));
  const failed = new Map([...mixed].filter(([, state]) => state === 'failed'));
  assert.deepEqual(parseUpstreams(formatUpstreams(mixed)), failed);

  const text = formatUpstreams(many(2_000, () => 'unsupported'));
  assert.ok(text.length <= 100 * 1024 && text.length > 99 * 1024, `${text.length} bytes`);
  assert.equal(parseUpstreams(text).get(host(0)), 'unsupported');

  const few = many(100, () => 'configured');
  assert.deepEqual(parseUpstreams(formatUpstreams(few)), few);
});

test('an annotation that is not what weir writes says nothing', () => {
  for (const text of [undefined, '', '{', '[]', 'null', '{"docker.io":1}'])
    assert.deepEqual([...parseUpstreams(text)], [], text);
});

function annotations(api: ScriptedApi): Readonly<Record<string, unknown>> {
  return z.record(z.string(), z.unknown()).parse(api.get(NODE)?.metadata?.['annotations']);
}

function many(count: number, stateOf: (index: number) => string): ReadonlyMap<string, string> {
  return new Map(Array.from({ length: count }, (_, index) => [host(index), stateOf(index)]));
}

function host(index: number): string {
  return `registry-${index}.${'long-name.'.repeat(20)}example`;
}

async function reporting(t: TestContext, options: NodeReporterOptions = {}) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(NODE, { metadata: {} });
  const log = pino({ level: 'silent' });
  const reporter = new NodeReporter(connectKubernetes('test'), 'node1', log, { gatherMs: 1, ...options });
  t.after(() => reporter.close());
  return { api, reporter, patches: () => api.requests.filter(({ method }) => method === 'PATCH').length };
}
