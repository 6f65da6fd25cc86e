import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { mock, suite, test } from 'node:test';
import { S3Blob } from '../../registry/s3-blob.ts';
import type { ByteRange } from '../../registry/store.ts';

const BYTES = Buffer.from('0123456789');
const IDLE_MS = 10_000;
const never = new AbortController().signal;

suite('a blob that is read from S3', () => {
  test('is asked for again when no byte comes', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const stalled = new Readable({ read: () => undefined });
    stalled.push(BYTES.subarray(0, 4));
    const asked: ByteRange[] = [];
    const blob = new S3Blob({
      size: 10,
      opened: { stream: stalled, range: { start: 0, end: 9 } },
      fetch: async (range) => {
        asked.push(range);
        return Readable.from([BYTES.subarray(range.start, range.end + 1)]);
      },
      name: 'the blob',
    });
    const read: string[] = [];
    const copying = blob.copyTo(async (chunk) => void read.push(String(chunk)), { start: 0, end: 9 }, never);
    await turnsUntil(() => read.length === 1);
    context.mock.timers.tick(IDLE_MS);
    assert.ok(stalled.destroyed);
    await turnsUntil(() => {
      context.mock.timers.tick(1_000);
      return asked.length === 1;
    });
    await copying;
    assert.deepEqual(asked, [{ start: 4, end: 9 }]);
    assert.equal(read.join(''), '0123456789');
  });

  test('waits for a client that is slow, however long', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const stream = Readable.from([BYTES.subarray(0, 4), BYTES.subarray(4)]);
    const blob = new S3Blob({
      size: 10,
      opened: { stream, range: { start: 0, end: 9 } },
      fetch: mock.fn(() => Promise.reject(new Error('nothing is asked for again'))),
      name: 'the blob',
    });
    const read: string[] = [];
    const write = async (chunk: Uint8Array) => {
      context.mock.timers.tick(10 * IDLE_MS);
      read.push(String(chunk));
    };
    await blob.copyTo(write, { start: 0, end: 9 }, never);
    assert.equal(read.join(''), '0123456789');
  });

  test('does not ask again for what the client failed to take', async () => {
    const stream = Readable.from([BYTES]);
    const blob = new S3Blob({
      size: 10,
      opened: { stream, range: { start: 0, end: 9 } },
      fetch: () => Promise.reject(new Error('nothing is asked for again')),
      name: 'the blob',
    });
    await assert.rejects(
      blob.copyTo(() => Promise.reject(new Error('the client left')), { start: 0, end: 9 }, never),
      /the client left/,
    );
    assert.ok(stream.destroyed);
  });
});

async function turnsUntil(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setImmediate(resolve));
}
