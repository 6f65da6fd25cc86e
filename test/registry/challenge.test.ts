import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChallenges } from '../../registry/challenge.ts';

function read(header: string): [string, Record<string, string>][] {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

test('a scope with a comma in its quotes is one parameter', () => {
  assert.deepEqual(
    read(
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
    ),
    [
      [
        'bearer',
        {
          realm: 'https://auth.docker.io/token',
          service: 'registry.docker.io',
          scope: 'repository:a/b:pull,push',
        },
      ],
    ],
  );
});

test('several challenges, spaces around signs, escapes and bare tokens are read', () => {
  assert.deepEqual(read('Basic realm="a \\"b\\"" , BEARER Realm = x, service=y'), [
    ['basic', { realm: 'a "b"' }],
    ['bearer', { realm: 'x', service: 'y' }],
  ]);
  assert.deepEqual(read('Negotiate, Basic realm=r'), [
    ['negotiate', {}],
    ['basic', { realm: 'r' }],
  ]);
});

test('what follows no grammar ends, and gives what could be read', { timeout: 5000 }, () => {
  assert.deepEqual(read(''), []);
  assert.deepEqual(read('@@@, Bearer realm="unfinished'), [['bearer', {}]]);
  assert.deepEqual(read('=,=,="'), []);
  assert.equal(read(`Bearer ${'a="b",'.repeat(5000)}`).length, 1);
});
