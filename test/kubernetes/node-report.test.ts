import assert from 'node:assert/strict';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { NodeReporter } from '../../kubernetes/node-report.ts';
import { until } from '../agent/scripted-replica.ts';
import { refuse, ScriptedApi } from './scripted-api.ts';

const NODE = '/api/v1/nodes/node1';
const CONFIGURED = { mirror: 'configured', configHash: 'abcdef0123456789' } as const;
const BAD = { mirror: 'fallback', configHash: 'abcdef0123456789', reason: 'x'.repeat(5_000) } as const;

test('a report that says nothing new is not written again', async (t) => {
  const { api, reporter, patches } = await reporting(t);
  reporter.report(CONFIGURED);
  await until(() => patches() === 1);
  for (let look = 0; look < 20; look++) reporter.report(CONFIGURED);
  reporter.report(BAD);
  await until(() => patches() === 2);
  assert.deepEqual(api.get(NODE)?.metadata?.['labels'], { 'weir.dev/mirror': 'fallback' });
  assert.deepEqual(api.get(NODE)?.metadata?.['annotations'], {
    'weir.dev/config': 'abcdef012345',
    'weir.dev/mirror-reason': 'x'.repeat(1_000),
  });
});

test('a label that somebody took away is back after a while', async (t) => {
  const { api, reporter, patches } = await reporting(t, 0);
  reporter.report(CONFIGURED);
  await until(() => patches() === 1);
  api.set(NODE, { metadata: {} });
  reporter.report(CONFIGURED);
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
});

async function reporting(t: TestContext, againMs?: number) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(NODE, { metadata: {} });
  const reporter = new NodeReporter(connectKubernetes('test'), 'node1', pino({ level: 'silent' }), againMs);
  t.after(() => reporter.close());
  return { api, reporter, patches: () => api.requests.filter(({ method }) => method === 'PATCH').length };
}
