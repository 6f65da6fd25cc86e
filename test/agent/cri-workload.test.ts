import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { askWorkload } from '../../agent/cri-workload.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type ScriptedCri, startCri } from './scripted-cri.ts';

const READY = { type: 'RuntimeReady', status: true, reason: '', message: '' };
const NETWORK = { type: 'NetworkReady', status: false, reason: 'NetworkPluginNotReady', message: 'no CNI' };

test('what runs is told apart from what has ended, and readiness from that of the network', async (t) => {
  const socket = await serve(t, {
    Status: () => ({
      status: { conditions: [NETWORK, READY] },
      info: { config: JSON.stringify({ registry: { configPath: '/certs' } }) },
    }),
    ListContainers: () => ({
      containers: [0, 1, 2, 3].map((state) => ({ id: `container ${state}`, state })),
    }),
    ListPodSandbox: () => ({ items: [0, 1].map((state) => ({ id: `sandbox ${state}`, state })) }),
  });
  assert.deepEqual(await askWorkload({ socket }, { timeout: 5_000 }), {
    notReady: undefined,
    running: ['container 1', 'sandbox 0'],
    configPath: '/certs',
  });
});

test('a runtime that is not ready says why', async (t) => {
  const conditions = [{ ...READY, status: false, reason: 'Broken', message: 'no snapshotter' }];
  const socket = await serve(t, { Status: () => ({ status: { conditions } }) });
  const { notReady, running, configPath } = await askWorkload({ socket }, { timeout: 5_000 });
  assert.deepEqual([notReady, running, configPath], ['Broken no snapshotter', [], undefined]);
});

test('a runtime that says nothing of itself is not ready', async (t) => {
  const socket = await serve(t, {});
  assert.equal((await askWorkload({ socket }, { timeout: 5_000 })).notReady, 'it does not say so');
});

test('a runtime that refuses, or is not there, is told', async (t) => {
  const socket = await serve(t, {
    ListContainers: () => {
      throw new Error('the store is broken');
    },
  });
  await assert.rejects(askWorkload({ socket }, { timeout: 5_000 }), /the store is broken/);
  await assert.rejects(
    askWorkload({ socket: `${socket}.none` }, { timeout: 5_000 }),
    /there is no such socket$/,
  );
  await assert.rejects(askWorkload({ socket }, { timeout: 5_000, signal: AbortSignal.abort() }), {
    name: 'AbortError',
  });
});

/** A runtime that gives these answers, and nothing for the rest. */
async function serve(t: TestContext, answers: ScriptedCri['answers']): Promise<string> {
  const scratch = await makeScratch();
  const cri = await startCri(join(scratch, 'cri.sock'));
  cri.answers = { Status: () => ({}), ...answers };
  t.after(async () => {
    cri.close();
    await removeScratch(scratch);
  });
  return cri.socket;
}
