import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { type GateTimings, HealthGate } from '../../agent/health-gate.ts';
import { createMetrics } from '../../process/metrics.ts';
import { answerCanary, parseCanaryRequest } from '../../registry/canary.ts';
import { listen } from './scripted-cri.ts';

/** What every replica answers. */
const well: RequestListener = (request, response) => {
  const asked = parseCanaryRequest(request.url ?? '');
  assert.ok(asked !== undefined);
  void answerCanary(request, response, asked);
};
const refusing: RequestListener = (_, response) => response.writeHead(503).end();

suite('a gate before the mirror', () => {
  test('falls after some probes that fail, and rises after some that succeed', async (t) => {
    const { gate, mirror, until } = await open(t);
    mirror.answer = refusing;
    await until((illness) => illness !== undefined);
    assert.match(gate.illness ?? '', /answers 503/);
    assert.ok(mirror.refused >= 3, `after ${mirror.refused} failures`);
    mirror.answer = well;
    const before = mirror.answered;
    await until((illness) => illness === undefined);
    // Each probe asks for a manifest and a blob.
    assert.ok(mirror.answered - before >= 3 * 2, `after ${mirror.answered - before} answers`);
  });

  test('stays where it is for a failure now and then', async (t) => {
    const { gate, mirror, changes } = await open(t);
    let probes = 0;
    mirror.answer = (request, response) => {
      const isFirst = (request.url ?? '').includes('/manifests/');
      if (isFirst) probes += 1;
      (isFirst && probes % 3 !== 0 ? refusing : well)(request, response);
    };
    const enough = (): boolean => probes >= 12;
    while (!enough()) await once(mirror.server, 'request');
    assert.equal(gate.illness, undefined);
    assert.equal(changes(), 0);
  });

  test('stays down longer each time that the mirror falls ill again soon', async (t) => {
    const { mirror, until } = await open(t);
    const answersUntilWell = async (): Promise<number> => {
      mirror.answer = refusing;
      await until((illness) => illness !== undefined);
      mirror.answer = well;
      const before = mirror.answered;
      await until((illness) => illness === undefined);
      return mirror.answered - before;
    };
    const first = await answersUntilWell();
    assert.ok((await answersUntilWell()) >= 2 * 3 * 2, 'the second time');
    assert.ok(first < 2 * 3 * 2, `the first time: ${first}`);
  });

  test('takes who answers something else for ill, and ends while nobody answers', async (t) => {
    const { gate, mirror, until, metric } = await open(t);
    mirror.answer = (_, response) => response.end('welcome');
    await until((illness) => illness !== undefined);
    assert.match(gate.illness ?? '', /is not weir/);
    assert.equal(await metric('weir_agent_mirror_ill'), '1');
    mirror.answer = () => undefined;
    await once(mirror.server, 'request');
    await gate.close();
  });
});

async function open(t: TestContext, timings: Partial<GateTimings> = { interval: 10 }) {
  const mirror = await startMirror(t);
  const metrics = createMetrics();
  let changed = Promise.withResolvers<void>();
  let changes = 0;
  const gate = new HealthGate({
    mirror: mirror.url,
    metrics,
    log: pino({ level: 'silent' }),
    onChange: () => {
      changes += 1;
      changed.resolve();
      changed = Promise.withResolvers();
    },
    timings,
  });
  t.after(() => gate.close());
  return {
    gate,
    mirror,
    changes: () => changes,
    until: async (is: (illness: string | undefined) => boolean) => {
      while (!is(gate.illness)) await changed.promise;
    },
    metric: async (name: string) => new RegExp(`^${name} (.*)$`, 'm').exec(await metrics.metrics())?.[1],
  };
}

interface Mirror {
  readonly url: string;
  readonly server: Server;
  answer: RequestListener;
  answered: number;
  refused: number;
}

async function startMirror(t: TestContext): Promise<Mirror> {
  const server = createServer((request, response) => {
    response.on('finish', () => {
      if (response.statusCode === 200) mirror.answered += 1;
      else mirror.refused += 1;
    });
    mirror.answer(request, response);
  });
  t.after(() => server.closeAllConnections());
  const mirror = { url: await listen(t, server), server, answer: well, answered: 0, refused: 0 };
  return mirror;
}
