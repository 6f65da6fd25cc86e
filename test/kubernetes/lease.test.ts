import assert from 'node:assert/strict';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import * as z from 'zod';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { type LeaseOptions, takeLease } from '../../kubernetes/lease.ts';
import { until } from '../agent/scripted-replica.ts';
import { type ApiRequest, refuse, ScriptedApi } from './scripted-api.ts';

const COLLECTION = '/apis/coordination.k8s.io/v1/namespaces/weir/leases';
const LEASE = `${COLLECTION}/turn`;
const DURATION_MS = 1_000;

test('a Lease has one holder at a time, and the next one when it is released', async (t) => {
  const { api: server, options, never } = await api(t);
  const first = await takeLease(options('one'), never);
  let isSecond = false;
  const second = takeLease(options('two'), never).then((held) => {
    isSecond = true;
    return held;
  });
  // It is renewed for longer than it lasts by itself.
  await until(() => server.requests.filter(({ method }) => method === 'PUT').length > 6);
  assert.equal(isSecond, false);
  assert.equal(first.lost.aborted, false);
  await first.release();
  await (await second).release();
});

test('of many that want it, no two have it at once', async (t) => {
  const { options, never } = await api(t);
  let holding = 0;
  let turns = 0;
  await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      const held = await takeLease(options(`node${index}`), never);
      holding += 1;
      assert.equal(holding, 1);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(held.lost.aborted, false);
      holding -= 1;
      turns += 1;
      await held.release();
    }),
  );
  assert.equal(turns, 8);
});

test('what a holder abandoned is free when it has run out, and not before', async (t) => {
  const { api: server, options, never } = await api(t);
  const long = await takeLease(options('one', 600_000), never);
  long.abandon();
  await long.release();
  const stop = new AbortController();
  const waiting = takeLease(options('two'), stop.signal);
  await until(() => server.requests.length > 10);
  stop.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
  (await takeLease(options('one'), never)).abandon();
  await (await takeLease(options('two'), never)).release();
});

test('a Lease may be given away for later', async (t) => {
  const { api: server, options, never } = await api(t);
  const held = await takeLease(options('one'), never);
  await held.release(600_000);
  await held.release();
  const spec = z.object({ holderIdentity: z.string(), leaseDurationSeconds: z.number() });
  assert.deepEqual(spec.parse(server.get(LEASE)?.['spec']), {
    holderIdentity: 'one',
    leaseDurationSeconds: 600,
  });
});

test('whoever comes back under the same name takes it on at once', async (t) => {
  const { api: server, options, never } = await api(t);
  (await takeLease(options('one', 60_000), never)).abandon();
  const again = await takeLease(options('one', 60_000), never);
  assert.equal(specIn(server).leaseTransitions, 1);
  await again.release();
  assert.equal(specIn(server).holderIdentity, undefined);
});

test('a holder whose Lease somebody else has taken is told so, and does not give it away', async (t) => {
  const { api: server, options, never } = await api(t);
  const held = await takeLease(options('one'), never);
  const theirs = { holderIdentity: 'two', leaseDurationSeconds: 60 };
  server.set(LEASE, { metadata: {}, spec: theirs });
  await until(() => held.lost.aborted);
  await held.release();
  assert.deepEqual(server.get(LEASE)?.['spec'], theirs);
});

test('a holder that cannot renew for long is told that it may have lost it', async (t) => {
  const { api: server, options, never } = await api(t);
  const held = await takeLease(options('one'), never);
  server.fault = ({ response }) => {
    refuse(response, 503);
    return true;
  };
  await until(() => held.lost.aborted);
  await held.release();
});

test('a renewal whose answer was lost is no loss of the Lease', async (t) => {
  const { api: server, options, never } = await api(t);
  const held = await takeLease(options('one'), never);
  let renewals = 0;
  const fault = server.fault;
  server.fault = (request) => {
    if (request.method === 'PUT') renewals += 1;
    if (request.method !== 'PUT' || renewals > 1) return fault(request);
    // It is written, and the connection breaks.
    server.set(LEASE, z.looseObject({}).parse(request.body));
    request.response.destroy();
    return true;
  };
  await until(() => renewals > 3);
  assert.equal(held.lost.aborted, false);
  await held.release();
});

test('while the API server is away nobody takes it, and whoever no longer wants it stops', async (t) => {
  const { api: server, options } = await api(t);
  server.fault = ({ response }) => {
    refuse(response, 500);
    return true;
  };
  const stop = new AbortController();
  const waiting = takeLease(options('one'), stop.signal);
  await until(() => server.requests.length > 1);
  stop.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
  assert.equal(server.get(LEASE), undefined);
});

async function api(t: TestContext) {
  const server = await ScriptedApi.start(t);
  server.fault = (request) => refuseOutdated(server, request);
  process.env['KUBECONFIG'] = server.kubeconfig;
  const kubernetes = connectKubernetes('test');
  const options = (holder: string, durationMs = DURATION_MS): LeaseOptions => ({
    kubernetes,
    lease: { namespace: 'weir', name: 'turn' },
    holder,
    durationMs,
    jitterMs: 10,
    log: pino({ level: 'silent' }),
  });
  return { api: server, options, never: new AbortController().signal };
}

/** As the API server does for whoever says which version he has seen. */
function refuseOutdated(server: ScriptedApi, { method, path, body, response }: ApiRequest): boolean {
  if (method !== 'PUT') return false;
  const metadata = z.object({ metadata: z.object({ resourceVersion: z.string() }) }).parse(body).metadata;
  if (server.get(path)?.metadata?.['resourceVersion'] === metadata.resourceVersion) {
    // What is put takes the place of what was.
    server.set(path, z.looseObject({}).parse(body));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(server.get(path)));
  } else refuse(response, 409);
  return true;
}

function specIn(server: ScriptedApi) {
  return z
    .object({ holderIdentity: z.string().optional(), leaseTransitions: z.number() })
    .parse(server.get(LEASE)?.['spec']);
}
