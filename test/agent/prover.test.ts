import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import type { Proof } from '../../agent/proof.ts';
import { Prover } from '../../agent/prover.ts';
import { createMetrics } from '../../process/metrics.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { canaryBehind, type ScriptedCri, startCri } from './scripted-cri.ts';

suite('a prover', () => {
  let scratch: string;
  let cri: ScriptedCri;
  let mirror: Mirror;

  beforeEach(async () => {
    scratch = await makeScratch();
    mirror = await startMirror('upstreams: { docker.io: {} }');
    cri = await startCri(join(scratch, 'cri.sock'));
    cri.pull = give;
  });
  afterEach(async () => {
    cri.close();
    await mirror.close();
    await removeScratch(scratch);
  });

  const pulls = () => cri.calls.filter((call) => call.startsWith('PullImage')).length;

  function start(t: TestContext, timings = {}) {
    const metrics = createMetrics();
    const prover = new Prover({
      socket: cri.socket,
      mirror: mirror.url,
      certsDir: '/etc/containerd/certs.d',
      log: pino({ level: 'silent' }),
      metrics,
      timings: { settle: 20, spread: 0, ...timings },
    });
    t.after(() => prover.close());
    const seen: (Proof['kind'] | undefined)[] = [];
    const waiting = new Set<() => void>();
    prover.subscribe((proof) => {
      seen.push(proof?.kind);
      for (const wake of waiting) wake();
    });
    const until = async (kind: Proof['kind'] | undefined) => {
      while (seen.at(-1) !== kind)
        await new Promise<void>((resolve) => {
          waiting.add(resolve);
        });
    };
    const metric = async () => /^weir_agent_proof\{result="(\w+)"\} 1$/m.exec(await metrics.metrics())?.[1];
    return { prover, seen, until, metric };
  }

  const CONFIGURED = { kind: 'configured' } as const;

  test('proves once the files are there, once for many changes, and again after the next', async (t) => {
    const { prover, seen, until, metric } = start(t);
    assert.equal(prover.proof, undefined);
    prover.look(undefined, true);
    for (let change = 0; change < 5; change++) prover.look(CONFIGURED, true);
    await until('proven');
    assert.equal(await metric(), 'proven');
    assert.equal(pulls(), 1);
    prover.look(CONFIGURED, false);
    cri.pull = refuse;
    prover.look(CONFIGURED, true);
    await until('bypassed');
    assert.equal(pulls(), 2);
    assert.deepEqual(seen, ['proven', 'bypassed']);
    assert.equal(await metric(), 'bypassed');
  });

  test('is not put off by changes that do not end', async (t) => {
    const { prover, until } = start(t);
    const changes = setInterval(() => prover.look(CONFIGURED, true), 2);
    t.after(() => clearInterval(changes));
    await until('proven');
  });

  test('proves at intervals, and sooner after a failure', async (t) => {
    const { prover, until, seen } = start(t, { interval: 60, retry: 30 });
    prover.look(CONFIGURED, true);
    await until('proven');
    cri.pull = refuse;
    await until('bypassed');
    cri.pull = give;
    await until('proven');
    assert.deepEqual(seen, ['proven', 'bypassed', 'proven']);
  });

  test("has nothing to say where there is nothing to prove, and says whose the canary's file is", async (t) => {
    const { prover, until, seen, metric } = start(t);
    prover.look(CONFIGURED, true);
    await until('proven');
    prover.look(undefined, true);
    assert.equal(prover.proof, undefined);
    assert.equal(await metric(), undefined);
    prover.look({ kind: 'overridden', reason: 'it was edited by hand' }, false);
    assert.deepEqual(prover.proof, {
      kind: 'unproven',
      reason: "the canary's file is not weir's: it was edited by hand",
    });
    prover.look(CONFIGURED, true);
    await until('proven');
    assert.deepEqual(seen, ['proven', undefined, 'unproven', 'proven']);
  });

  test('cuts a proof short that is not wanted any more, and leaves nothing', async (t) => {
    const { prover, seen } = start(t);
    const began = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    cri.pull = async (reference) => {
      began.resolve();
      await goOn.promise;
      return give(reference);
    };
    prover.look(CONFIGURED, true);
    await began.promise;
    const closed = prover.close();
    goOn.resolve();
    await closed;
    assert.deepEqual(seen, []);
    assert.match(cri.calls.at(-1) ?? '', /^RemoveImage/);
    prover.look(CONFIGURED, true);
    assert.equal(pulls(), 1);
  });
});

function give(reference: string): Promise<string> {
  return Promise.resolve(canaryBehind(reference).config.digest);
}

function refuse(): Promise<string> {
  return Promise.reject(new Error('dial tcp: lookup canary.weir.internal: no such host'));
}
