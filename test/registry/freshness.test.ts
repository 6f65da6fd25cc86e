import assert from 'node:assert/strict';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { LRUCache } from 'lru-cache';
import { pino } from 'pino';
import { Freshness, type Origin } from '../../registry/freshness.ts';
import { StoreWrites } from '../../registry/store-writes.ts';

const HOUR_MS = 3_600_000;
const log = pino({ level: 'silent' });

suite('what an upstream once said', () => {
  const times = { ttl: HOUR_MS, staleWhileRevalidate: HOUR_MS, budget: HOUR_MS };
  const table: Readonly<Record<string, [age: number, origin: Origin, asked: boolean, overdueHours: number]>> =
    {
      'within its time to live is a hit': [0.5 * HOUR_MS, 'hit', false, 0],
      'soon after it is given while the upstream is asked': [1.5 * HOUR_MS, 'revalidating', true, 0.5],
      'later than that waits for the upstream': [2.5 * HOUR_MS, 'revalidated', true, 0],
      'in the future is confirmed, since the clock was set back': [-0.5 * HOUR_MS, 'revalidated', true, 0],
    };
  let freshness: Freshness<{ checkedAt: number }>;
  beforeEach(() => {
    const writes = new StoreWrites({ log, signal: new AbortController().signal });
    freshness = new Freshness(new LRUCache({ max: 10 }), writes, log);
  });

  for (const [name, [age, expected, isAsked, overdueHours]] of Object.entries(table))
    test(name, async () => {
      let asked = false;
      const { origin, overdue } = await freshness.resolve({
        name: 'it',
        times,
        stored: async () => ({ checkedAt: Date.now() - age }),
        ask: async () => {
          asked = true;
          return { record: { checkedAt: Date.now() }, origin: 'revalidated' };
        },
        store: async () => undefined,
      });
      assert.equal(origin, expected);
      assert.equal(asked, isAsked);
      assert.equal(Math.round(overdue / (HOUR_MS / 10)) / 10, overdueHours);
    });

  test('gives way to what it said meanwhile, when the store is slow to find it', async () => {
    const found = Promise.withResolvers<{ checkedAt: number }>();
    const [before, now] = [{ checkedAt: Date.now() - 0.5 * HOUR_MS }, { checkedAt: Date.now() }];
    const inquiry = {
      name: 'it',
      times,
      stored: () => found.promise,
      ask: async () => ({ record: now, origin: 'miss' }) as const,
      store: async () => undefined,
    };
    const slow = freshness.resolve(inquiry);
    await freshness.resolve({ ...inquiry, stored: async () => undefined });
    found.resolve(before);
    assert.equal((await slow).record, now);
    assert.equal((await freshness.resolve(inquiry)).record, now);
  });
});

suite('what is written to the store behind an answer', () => {
  let stop: AbortController;
  let writes: StoreWrites;
  beforeEach(() => {
    stop = new AbortController();
    writes = new StoreWrites({ log, signal: stop.signal });
  });
  afterEach(() => stop.abort());

  test('is waited for at the end', async () => {
    const taken = Promise.withResolvers<void>();
    const order: string[] = [];
    writes.add('it', async () => {
      await taken.promise;
      order.push('written');
    });
    const closing = writes.close().then(() => order.push('closed'));
    setImmediate(taken.resolve);
    await closing;
    assert.deepEqual(order, ['written', 'closed']);
  });

  test('and was not taken is not tried again once something later was written in its place', async () => {
    const tried: string[] = [];
    const failed = Promise.withResolvers<void>();
    writes.add('it', async () => {
      failed.resolve();
      if (tried.push('earlier') === 1) throw new Error('the store is away');
    });
    await failed.promise;
    writes.add('it', async () => void tried.push('later'));
    writes.add('other', async () => void tried.push('other'));
    await writes.close();
    assert.deepEqual(tried, ['earlier', 'later', 'other']);
  });

  test('and was not taken is given up when the program ends', async () => {
    writes.add('it', async () => Promise.reject(new Error('the store is away')));
    stop.abort();
    await writes.close();
  });
});
