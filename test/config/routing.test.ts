import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDuration } from '../../config/duration.ts';
import { parseConfig } from '../../config/parse.ts';
import { hostForPrefix, routeFor, sourcesOf } from '../../config/routing.ts';

const { config } = parseConfig(`
upstreams:
  docker.io: { mirror: https://hub.example }
  quay.io: {}
  gcr.io: { mirror: https://gcr.example, via: node }
  harbor.corp:8443: { prefix: corp }
`);

test('a host goes through the registry, to a mirror of the nodes, or is left alone', () => {
  assert.equal(routeFor(config, 'docker.io').kind, 'registry');
  assert.equal(routeFor(config, 'gcr.io').kind, 'node');
  assert.deepEqual(routeFor(config, 'ghcr.io'), {
    kind: 'untouched',
    host: 'ghcr.io',
    why: 'not configured',
  });
});

test('when weir is switched off, every host is left alone', () => {
  assert.deepEqual(routeFor({ ...config, enabled: false }, 'docker.io'), {
    kind: 'untouched',
    host: 'docker.io',
    why: 'disabled',
  });
});

test('the registry fetches from the mirror first, then from the original', () => {
  const upstream = config.upstreams.get('docker.io');
  assert.ok(upstream);
  assert.deepEqual(
    sourcesOf(upstream).map(({ origin }) => origin),
    ['https://hub.example', 'https://registry-1.docker.io'],
  );
});

test('a first path component stands for a host by prefix, by name, and also where it is not configured', () => {
  const hosts = {
    dockerhub: 'docker.io',
    quay: 'quay.io',
    quayio: 'quay.io',
    'quay.io': 'quay.io',
    corp: 'harbor.corp:8443',
    'harbor.corp-8443': 'harbor.corp:8443',
    ghcr: 'ghcr.io',
    k8s: 'registry.k8s.io',
    'unknown.example': 'unknown.example',
  };
  for (const [component, host] of Object.entries(hosts))
    assert.equal(hostForPrefix(config, component), host, component);
  assert.equal(hostForPrefix(config, 'library'), undefined);
});

test('durations are read and written alike', () => {
  for (const [text, milliseconds] of [
    ['60s', 60_000],
    ['10m', 600_000],
    ['500ms', 500],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    ['0s', 0],
  ] as const) {
    assert.equal(parseDuration(text), milliseconds === 60_000 ? 60_000 : milliseconds);
    assert.equal(parseDuration(formatDuration(milliseconds)), milliseconds);
  }
  assert.equal(parseDuration('1h30m'), 5_400_000);
  for (const text of ['', '60', '-1s', '1.5h', 's', '1 s', '99999999999999999d'])
    assert.equal(parseDuration(text), undefined, text);
});
