import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { askWorkload, workloadMessages } from '../../agent/cri-workload.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

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
  await assert.rejects(askWorkload({ socket: `${socket}.none` }, { timeout: 5_000 }), /ENOENT/);
  await assert.rejects(askWorkload({ socket }, { timeout: 5_000, signal: AbortSignal.abort() }), {
    name: 'AbortError',
  });
});

async function serve(t: TestContext, answers: Readonly<Record<string, () => object>>): Promise<string> {
  const definition = workloadMessages()['runtime.v1.RuntimeService'];
  if (definition === undefined || 'format' in definition) throw new Error('there is no such service');
  const implementation: UntypedServiceImplementation = {};
  for (const name of Object.keys(definition)) {
    const handle: handleUnaryCall<unknown, object> = (_, answer) => {
      try {
        answer(null, answers[name]?.() ?? {});
      } catch (error) {
        answer({ code: status.UNKNOWN, details: error instanceof Error ? error.message : '' });
      }
    };
    implementation[name] = handle;
  }
  const server = new Server();
  server.addService(definition, implementation);
  const scratch = await makeScratch();
  const socket = join(scratch, 'cri.sock');
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
    error === null ? resolve() : reject(error),
  );
  await promise;
  t.after(async () => {
    server.forceShutdown();
    await removeScratch(scratch);
  });
  return socket;
}
