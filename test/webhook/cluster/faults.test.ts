import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import process from 'node:process';
import { after, before, suite, test } from 'node:test';
import { freePort } from '../../containerd/port.ts';
import type { Child } from '../../tools/child.ts';
import { Balancer } from './balancer.ts';
import { DOOR, eventually, imageOf, Stage } from './stage.ts';

const IMAGE = 'app:1';
const REWRITTEN = `${DOOR}/docker.io/library/app:1`;
/** API servers wait for two seconds; the rest is for a machine that has a lot to do. */
const PATIENCE_MS = 10_000;
/** Longer than any answer may take. */
const SLOW_MS = 5_000;
const DEADLINE = /decisions_total\{at="bind",decision="left",reason="deadline"\} ([1-9]\d*)/;

suite('the webhook in a cluster that has trouble', () => {
  let stage: Stage;
  let balancer: Balancer;
  let webhook: Child;
  let port: number;
  const rewrites = async (): Promise<boolean> => (await stage.imageOn('fallback', IMAGE)) === REWRITTEN;

  /** A replica to which Pods are sent, as they are to one that is ready. */
  const startReplica = async (): Promise<{ replica: Child; at: number }> => {
    const at = await freePort();
    const replica = await stage.startWebhook({ servicePort: String(balancer.port) }, at);
    await eventually('it is ready', async () => (await told(replica, '/readyz')) === 'ok\n');
    balancer.ports.push(at);
    return { replica, at };
  };

  before(async () => {
    stage = await Stage.open({ hasApiFront: true });
    balancer = await Balancer.start();
    await stage.makeNode('fallback', { 'docker.io': 'unsupported' });
    ({ replica: webhook, at: port } = await startReplica());
    await eventually('Pods are rewritten', rewrites);
  });
  after(async () => {
    await balancer?.close();
    await stage?.close();
  });

  test('reads no Pod from the API that it has heard of', async () => {
    const asked = stage.apiFront?.asked ?? [];
    const reads = (): string[] =>
      asked.filter((one) => one.startsWith('GET /api/v1/namespaces/default/pods/'));
    const pods = await Promise.all(Array.from({ length: 20 }, () => stage.makePod(IMAGE)));
    // It hears of them in their order.
    await eventually('it hears of one that was made later', async () => {
      const before = reads().length;
      return (await rewrites()) && reads().length === before;
    });
    const before = reads().length;
    for (const pod of pods) assert.equal(imageOf(await stage.bind(pod, 'fallback')), REWRITTEN);
    assert.deepEqual(reads().slice(before), []);
  });

  test('lets Pods pass as they are while the API server is slow to it, tells of it, and goes on', async () => {
    const { apiFront } = stage;
    assert.ok(apiFront !== undefined);
    apiFront.delayMs = SLOW_MS;
    const pod = await stage.makePod(IMAGE);
    const took = await timed(() => stage.bindOnly(pod, 'fallback'));
    assert.ok(took < PATIENCE_MS, `${took} ms`);
    assert.equal(imageOf(await stage.read(pod)), IMAGE);
    const fieldSelector = `involvedObject.uid=${pod.metadata?.uid}`;
    await eventually('an Event tells', async () => {
      const { items } = await stage.core.listNamespacedEvent({ namespace: 'default', fieldSelector });
      return items.some(({ message }) => message?.includes('could not be decided in time') === true);
    });
    assert.match(await told(webhook, '/metrics'), DEADLINE);
    assert.equal(imageOf(await stage.read(pod)), IMAGE, 'and nothing changes it later');
    apiFront.delayMs = 0;
    await eventually('Pods are rewritten', rewrites);
  });

  test('holds no Pod up while it hangs', async () => {
    const pod = await stage.makePod(IMAGE);
    process.kill(webhook.pid, 'SIGSTOP');
    try {
      const took = await timed(() => stage.bindOnly(pod, 'fallback'));
      assert.ok(took < PATIENCE_MS, `${took} ms`);
      const another = await timed(() => stage.makePod(IMAGE));
      assert.ok(another < PATIENCE_MS, `${another} ms`);
    } finally {
      process.kill(webhook.pid, 'SIGCONT');
    }
    assert.equal(imageOf(await stage.read(pod)), IMAGE);
    await eventually('Pods are rewritten', rewrites);
  });

  test('holds no Pod up while it is killed', async () => {
    const pod = await stage.makePod(IMAGE);
    const ends = webhook.stop('SIGKILL');
    const took = await timed(() => stage.bindOnly(pod, 'fallback'));
    assert.ok(took < PATIENCE_MS, `${took} ms`);
    await ends;
    balancer.leave(port);
    ({ replica: webhook, at: port } = await startReplica());
    await eventually('Pods are rewritten', rewrites);
  });

  test('leaves the images of a node whose agent was killed, although it says that its door is open', async () => {
    const address = '127.0.0.2';
    const listen = async (): Promise<Server> => {
      const server = createServer((socket) => socket.destroy()).listen(stage.agentPort, address);
      await once(server, 'listening');
      return server;
    };
    const image = async (): Promise<string | undefined> => stage.imageOn('deserted', IMAGE);
    await stage.makeNode('deserted', { 'docker.io': 'unsupported' }, { address });
    const agent = await listen();
    await eventually('its Pods are rewritten', async () => (await image()) === REWRITTEN);
    agent.close();
    await eventually('they keep their images', async () => (await image()) === IMAGE);
    const next = await listen();
    await eventually('they are rewritten again', async () => (await image()) === REWRITTEN);
    next.close();
  });

  test('rewrites every image while its replicas are replaced one after the other', async () => {
    const second = await startReplica();
    const done = new AbortController();
    const images: (string | undefined)[] = [];
    const bindOn = async (): Promise<void> => {
      while (!done.signal.aborted) images.push(await stage.imageOn('fallback', IMAGE));
    };
    const binding = Promise.all([bindOn(), bindOn(), bindOn()]);
    const replace = async (old: Child, at: number): Promise<{ replica: Child; at: number }> => {
      const next = await startReplica();
      balancer.leave(at);
      assert.equal(await old.stop('SIGTERM'), 0);
      return next;
    };
    try {
      ({ replica: webhook, at: port } = await replace(webhook, port));
      await replace(second.replica, second.at);
    } finally {
      done.abort();
      await binding;
    }
    assert.ok(images.length > 30, `${images.length} Pods`);
    assert.deepEqual(new Set(images), new Set([REWRITTEN]));
  });
});

/** What a replica says of itself. */
async function told(webhook: Child, path: string): Promise<string> {
  const [, url = ''] = /"url":"([^"]+)"/.exec(await webhook.line(/the webhook tells how it is/)) ?? [];
  return (await fetch(new URL(path, url))).text();
}

async function timed(act: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await act();
  return performance.now() - began;
}
