import assert from 'node:assert/strict';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { WaitingPods } from '../../kubernetes/pod-index.ts';
import { until } from '../agent/scripted-replica.ts';
import { refuse, ScriptedApi } from './scripted-api.ts';

const LIST = '/api/v1/pods';
const COUNT = 1_234;
const named = (name: string) => ({ namespace: 'apps', name });

suite('the Pods that wait for a node', () => {
  test('are listed page by page, and each remembered by what is wanted of it', async (t) => {
    const { api, pods } = await waiting(t);
    const asked = api.requests
      .filter(({ isWatch }) => !isWatch)
      .map(({ query }) => Object.fromEntries(query));
    const fieldSelector = 'spec.nodeName=';
    assert.deepEqual(asked, [
      { fieldSelector, limit: '500' },
      { fieldSelector, limit: '500', continue: '500' },
      { fieldSelector, limit: '500', continue: '1000' },
    ]);
    for (const at of [0, 499, 500, COUNT - 1]) assert.equal(pods.find(named(`p${at}`)), `p${at}`);
    assert.equal(pods.find(named('other')), undefined);
  });

  test('follow what becomes of them, and of no more than one at a time is anything made', async (t) => {
    const { api, pods, kept } = await waiting(t);
    await until(() => api.watches === 1);
    kept.length = 0;
    api.set(`${LIST}/new`, podNamed('new'));
    await until(() => pods.find(named('new')) === 'new');
    api.set(`${LIST}/p0`, undefined);
    await until(() => pods.find(named('p0')) === undefined);
    api.set(`${LIST}/p1`, { ...podNamed('p1'), spec: 'odd' });
    await until(() => pods.find(named('p1')) === undefined);
    assert.deepEqual(kept, ['new', 'p1']);
  });

  test('are those that there are after a list that broke off midway, and no others', async (t) => {
    const { api, pods } = await waiting(t);
    await until(() => api.watches === 1);
    let isBroken = false;
    api.fault = ({ query, response }) => {
      if (isBroken || query.get('continue') === null) return false;
      isBroken = true;
      refuse(response, 410, 'the list is too old to go on with');
      return true;
    };
    api.tell('ERROR', { kind: 'Status', code: 410, message: 'too old resource version' });
    await until(() => api.watches === 0);
    api.set(`${LIST}/p0`, undefined);
    api.set(`${LIST}/p${COUNT}`, podNamed(`p${COUNT}`));
    await until(() => pods.find(named('p0')) === undefined);
    assert.ok(isBroken);
    assert.equal(pods.find(named(`p${COUNT}`)), `p${COUNT}`);
    assert.equal(pods.find(named('p1')), 'p1');
  });
});

function podNamed(name: string) {
  return { metadata: { namespace: 'apps', name }, spec: { containers: [{ name: 'app', image: 'a' }] } };
}

/** An API server with many Pods, all of them known; of each its name is kept, while it has containers. */
async function waiting(t: TestContext) {
  const api = await ScriptedApi.start(t);
  for (let at = 0; at < COUNT; at++) api.set(`${LIST}/p${at}`, podNamed(`p${at}`));
  process.env['KUBECONFIG'] = api.kubeconfig;
  const kept: string[] = [];
  const known = Promise.withResolvers<void>();
  const pods = new WaitingPods<string>({
    kubernetes: connectKubernetes('test'),
    keep: ({ metadata, spec }) => {
      const name = metadata?.name ?? '';
      kept.push(name);
      return spec?.containers === undefined ? undefined : name;
    },
    known: () => known.resolve(),
    log: pino({ level: 'silent' }),
  });
  t.after(() => pods.close());
  await known.promise;
  return { api, pods, kept };
}
