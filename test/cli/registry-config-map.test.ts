import assert from 'node:assert/strict';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { watchConfigMap } from '../../cli/registry-config-map.ts';
import { createMetrics } from '../../process/metrics.ts';
import { until } from '../agent/scripted-replica.ts';
import { ScriptedApi } from '../kubernetes/scripted-api.ts';

const MAP = '/api/v1/namespaces/weir/configmaps/weir';
const LAST_GOOD = `${MAP}-last-good`;
const EVENTS = '/api/v1/namespaces/weir/events';
const mapSchema = z.object({ data: z.object({ 'config.yaml': z.string() }) });
const map = (text: string) => ({ data: { 'config.yaml': text } });
const good = (host: string): string => `upstreams: { ${host}.example: {} }\n`;

test('the last of many good configurations is kept, although the one before it was answered late', async (t) => {
  const { api } = await watching(t);
  await until(() => kept(api) === good('first'));
  let isHeld = false;
  api.fault = ({ method, path, body, response }) => {
    if (isHeld || method !== 'PATCH' || path !== LAST_GOOD) return false;
    isHeld = true;
    setTimeout(() => {
      api.set(LAST_GOOD, mapSchema.parse(body));
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    }, 300);
    return true;
  };
  api.set(MAP, map(good('slow')));
  await until(() => isHeld);
  api.set(MAP, map(good('last')));
  await until(() => api.requests.filter(({ method }) => method === 'PATCH').length === 3);
  await until(() => kept(api) === good('last'));
  // Nothing of it is still on its way.
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(kept(api), good('last'));
});

test('a configuration is kept once the API server takes it', async (t) => {
  const { api } = await watching(t, ({ method, response }) => {
    if (method !== 'PATCH') return false;
    response.writeHead(500).end();
    return true;
  });
  await until(() => api.requests.some(({ method }) => method === 'PATCH'));
  api.fault = () => false;
  await until(() => kept(api) === good('first'));
});

test('many broken edits in a second make one Event, not a flood', async (t) => {
  const { api, config } = await watching(t);
  for (let edit = 0; edit < 30; edit++) {
    api.set(MAP, map(`upstreams: { a.example: { mirrr${edit}: x } }\n`));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await until(() => config.detail.some((line) => line.includes('mirrr29')));
  assert.equal(api.requests.filter(({ method, path }) => method === 'POST' && path === EVENTS).length, 1);
  assert.deepEqual([...config.current.upstreams.keys()], ['first.example']);
});

async function watching(t: TestContext, fault?: ScriptedApi['fault']) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  api.set(MAP, map(good('first')));
  api.set(LAST_GOOD, {});
  if (fault !== undefined) api.fault = fault;
  const config = await watchConfigMap({
    configMap: 'weir/weir',
    listen: '127.0.0.1:0',
    metrics: createMetrics(),
    log: pino({ level: 'silent' }),
    stop: new AbortController().signal,
  });
  if (config === undefined) throw new Error('nobody told it to stop');
  t.after(() => config.close());
  return { api, config };
}

function kept(api: ScriptedApi): unknown {
  return mapSchema.safeParse(api.get(LAST_GOOD)).data?.data['config.yaml'];
}
