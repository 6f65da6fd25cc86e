import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { suite, test } from 'node:test';
import { pino } from 'pino';
import type { HostState } from '../../agent/change.ts';
import { standBy, withdrawn } from '../../cli/node-work.ts';
import { createMetrics } from '../../process/metrics.ts';
import { answerCanary, parseCanaryRequest } from '../../registry/canary.ts';
import { configOf } from '../agent/node-files.ts';
import { listen } from '../agent/scripted-cri.ts';

const CONFIG = configOf(`upstreams:
  docker.io: {}
  quay.io: { direct: false }
  gcr.io: { mirror: https://mirror.example, via: node }
`);

suite('while the mirror is ill', () => {
  test('only what may be asked directly and goes through our registry is withdrawn', () => {
    assert.deepEqual([...withdrawn(CONFIG, undefined)], []);
    const reason = 'the mirror is ill: it answers 503';
    assert.deepEqual(
      [...withdrawn(CONFIG, 'it answers 503')],
      [['docker.io', { kind: 'withdrawn', reason }]],
    );
  });

  test('a node on which nothing is written says so of the same upstreams, until it is well', async (t) => {
    let isWell = false;
    const answer: RequestListener = (request, response) => {
      const asked = parseCanaryRequest(request.url ?? '');
      if (isWell && asked !== undefined) void answerCanary(request, response, asked);
      else response.writeHead(503).end();
    };
    const server = createServer(answer);
    t.after(() => server.closeAllConnections());
    const mirror = { url: await listen(t, server) };
    let told: ReadonlyMap<string, HostState> = new Map();
    const work = standBy({
      reason: () => 'no config_path is set',
      mirror,
      config: { current: CONFIG, detail: [], subscribe: () => () => undefined },
      metrics: createMetrics(),
      log: pino({ level: 'silent' }),
      tell: (states) => {
        told = states;
      },
      timings: { interval: 10 },
    });
    t.after(() => work.close());
    const kinds = (): string[] => [...told].map(([host, { kind }]) => `${host} ${kind}`);
    assert.deepEqual(kinds(), ['docker.io unsupported', 'quay.io unsupported', 'gcr.io unsupported']);
    while (!kinds().includes('docker.io withdrawn')) await once(server, 'request');
    assert.deepEqual(kinds(), ['docker.io withdrawn', 'quay.io unsupported', 'gcr.io unsupported']);
    const state = told.get('docker.io');
    assert.ok(state !== undefined && 'reason' in state);
    assert.match(state.reason, /the mirror is ill: .* answers 503; no config_path is set/);
    isWell = true;
    while (kinds().includes('docker.io withdrawn')) await once(server, 'request');
  });
});
