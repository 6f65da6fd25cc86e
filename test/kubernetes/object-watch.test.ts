import assert from 'node:assert/strict';
import process from 'node:process';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { ObjectWatch } from '../../kubernetes/object-watch.ts';
import { until } from '../agent/scripted-replica.ts';
import { refuse, ScriptedApi } from './scripted-api.ts';

const MAPS = '/api/v1/namespaces/weir/configmaps';
const WEIR = `${MAPS}/weir`;
const map = (text: string) => ({ data: { 'config.yaml': text } });

suite('what is watched', { concurrency: true }, () => {
  test('is known by its list, follows every change, and is nothing once it is deleted', async (t) => {
    const { api, last } = await watched(t);
    api.set(WEIR, map('1'));
    await until(() => last() === '1');
    api.set(WEIR, map('2'));
    await until(() => last() === '2');
    api.set(WEIR, undefined);
    await until(() => last() === 'nothing');
    assert.equal(api.requests.length, 2, 'a list and a watch');
  });

  for (const how of ['end', 'break'] as const)
    test(`is followed from where it is known after its watch came to its ${how}, without another list`, async (t) => {
      const { api, last } = await watched(t);
      for (const text of ['1', '2', '3']) {
        await until(() => api.watches === 1);
        api.endWatches(how);
        await until(() => api.watches === 0);
        api.set(WEIR, map(text));
        await until(() => last() === text);
      }
      await until(() => api.watches === 1);
      api.endWatches(how);
      await until(() => api.watches === 0);
      api.set(WEIR, undefined);
      await until(() => last() === 'nothing');
      assert.equal(api.requests.filter(({ isWatch }) => !isWatch).length, 1);
    });

  test('is watched from the version of the last bookmark', async (t) => {
    const { api } = await watched(t);
    await until(() => api.watches === 1);
    api.tell('BOOKMARK', { kind: 'ConfigMap', metadata: { resourceVersion: '5000' } });
    api.endWatches('end');
    await until(() => api.requests.filter(({ isWatch }) => isWatch).length === 2);
    assert.equal(api.requests.at(-1)?.query.get('resourceVersion'), '5000');
  });

  test('is right again although the versions of objects went back, as after a restored backup', async (t) => {
    const { api, last } = await watched(t, 500);
    api.rewind(1_000_000);
    api.set(WEIR, map('before'));
    await until(() => last() === 'before');
    api.endWatches('end');
    await until(() => api.watches === 0);
    api.rewind(5);
    api.set(WEIR, map('restored'));
    await until(() => last() === 'restored');
    await until(() => api.watches === 1);
    api.set(WEIR, map('after'));
    await until(() => last() === 'after');
  });

  test('is right again after the server said on the watch that its history is gone', async (t) => {
    const { api, last } = await watched(t);
    await until(() => api.watches === 1);
    api.tell('ERROR', { kind: 'Status', code: 410, message: 'too old resource version' });
    await until(() => api.watches === 0);
    api.set(WEIR, map('new'));
    await until(() => last() === 'new');
  });

  for (const code of [403, 410, 500])
    test(`stays while lists and watches are answered with ${code}, which is told once`, async (t) => {
      const { api, last, lines } = await watched(t);
      api.set(WEIR, map('known'));
      await until(() => last() === 'known');
      let refused = 0;
      api.fault = ({ response, isWatch }) => {
        // In turn the list and the watch, both of which come again.
        if (!isWatch && refused % 2 === 1) return false;
        refused += 1;
        refuse(response, code);
        return true;
      };
      api.endWatches('break');
      await until(() => refused >= 2);
      assert.equal(last(), 'known');
      api.fault = () => false;
      api.set(WEIR, map('new'));
      await until(() => last() === 'new' && api.watches === 1);
      assert.equal(lines.filter(({ level }) => level === 40).length, 1, JSON.stringify(lines));
      await until(() => lines.filter(({ msg }) => msg.includes('watched again')).length === 1);
    });

  test('is asked for anew when a connection is silent for too long', async (t) => {
    const { api, last } = await watched(t, 150);
    await until(() => api.requests.filter(({ isWatch }) => isWatch).length >= 3);
    api.set(WEIR, map('still there'));
    await until(() => last() === 'still there');
  });

  test('is not told of once it is closed, and no connection stays', async (t) => {
    const { api, last, watch } = await watched(t);
    await until(() => api.watches === 1);
    watch.close();
    await until(() => api.watches === 0);
    api.set(WEIR, map('late'));
    assert.equal(last(), 'nothing');
    // Amid a list that does not end.
    const other = await watched(t);
    await until(() => other.api.watches === 1);
    let held = false;
    other.api.fault = () => (held = true);
    other.api.endWatches('end');
    await until(() => held);
    other.watch.close();
  });
});

const lineSchema = z.object({ level: z.number(), msg: z.string() });

/** A watch of one ConfigMap, with what it told last and what it logged. */
async function watched(t: TestContext, quietMs?: number) {
  const api = await ScriptedApi.start(t);
  process.env['KUBECONFIG'] = api.kubeconfig;
  const kubernetes = connectKubernetes('test', quietMs);
  const lines: z.infer<typeof lineSchema>[] = [];
  let last: string | undefined;
  const fieldSelector = 'metadata.name=weir';
  const watch = new ObjectWatch<'configmaps'>({
    kubernetes,
    what: 'ConfigMap weir/weir',
    collection: 'configmaps',
    selection: { namespace: 'weir', fieldSelector },
    changed: ([found]) => {
      last = found?.data?.['config.yaml'] ?? 'nothing';
    },
    log: pino({}, { write: (line: string) => lines.push(lineSchema.parse(JSON.parse(line))) }),
  });
  t.after(() => watch.close());
  await until(() => last !== undefined);
  return { api, watch, lines, last: () => last };
}
