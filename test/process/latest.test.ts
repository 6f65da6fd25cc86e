import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Latest } from '../../process/latest.ts';

test('of values that come while one is acted on, only the newest is acted on next', async () => {
  const acted: number[] = [];
  let done = Promise.withResolvers<void>();
  const latest = new Latest<number>({
    async act(value) {
      acted.push(value);
      await done.promise;
    },
    failed: (error) => assert.fail(String(error)),
  });
  for (const value of [1, 2, 3, 4]) latest.put(value);
  assert.deepEqual(acted, [1]);
  done.resolve();
  done = Promise.withResolvers();
  await new Promise(setImmediate);
  assert.deepEqual(acted, [1, 4]);
  latest.put(5);
  done.resolve();
  await latest.close();
  assert.deepEqual(acted, [1, 4], 'what waited is dropped');
  latest.put(6);
  assert.deepEqual(acted, [1, 4]);
});

test('what failed is tried again, unless something newer came', async () => {
  const acted: string[] = [];
  const two = Promise.withResolvers<void>();
  const failures: unknown[] = [];
  const latest = new Latest<string>({
    async act(value) {
      acted.push(value);
      if (acted.length < 3) throw new Error(`not yet: ${value}`);
      two.resolve();
    },
    failed: (error) => failures.push(error),
    retryMs: 1,
  });
  // What is waited for is no reason for the program to go on, so something else has to be.
  const program = setInterval(() => undefined, 1_000);
  latest.put('old');
  await new Promise(setImmediate);
  latest.put('new');
  await two.promise;
  clearInterval(program);
  assert.equal(acted.at(-1), 'new');
  assert.equal(failures.length, 2);
});
