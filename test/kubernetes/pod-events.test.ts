import assert from 'node:assert/strict';
import process from 'node:process';
import { test } from 'node:test';
import { pino } from 'pino';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { PodEvents } from '../../kubernetes/pod-events.ts';
import { createMetrics } from '../../process/metrics.ts';
import { until } from '../agent/scripted-replica.ts';
import { refuse, ScriptedApi } from './scripted-api.ts';

const EVENTS = '/api/v1/namespaces/default/events';
const SUBJECT = { apiVersion: 'apps/v1', kind: 'ReplicaSet', namespace: 'default', name: 'web', uid: 'u' };

test('Events are made under what they are about, so many in a while, and the others are counted', async (t) => {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  const metrics = createMetrics();
  const log = pino({ level: 'silent' });
  const events = new PodEvents(connectKubernetes('test'), { reporter: 'test', metrics, log });
  const dropped = async () =>
    (await metrics.getSingleMetric('weir_webhook_events_dropped_total')?.get())?.values;

  let refused = false;
  api.fault = ({ response }) => {
    if (refused) return false;
    refused = true;
    refuse(response, 403);
    return true;
  };
  for (let count = 0; count < 23; count++)
    events.warn({ subject: SUBJECT, reason: 'ImageNotRewritten', message: `${count}` });
  await until(() => api.names(EVENTS).length === 19);
  const [name = ''] = api.names(EVENTS);
  assert.deepEqual(api.get(`${EVENTS}/${name}`)?.['involvedObject'], SUBJECT);
  await until(async () => (await dropped())?.length === 2);
  assert.deepEqual(
    (await dropped())?.map(({ labels, value }) => [labels['why'], value]),
    [
      ['many', 3],
      ['refused', 1],
    ],
  );
});
