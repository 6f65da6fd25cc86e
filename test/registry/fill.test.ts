import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { Fill } from '../../registry/fill.ts';
import { HashPool } from '../../registry/hash-pool.ts';
import { passThrough } from '../../registry/pass-through.ts';
import { SpoolFull } from '../../registry/spool.ts';
import { type SpoolAccount, SpoolBudget } from '../../registry/spool-budget.ts';
import type { UpstreamBody } from '../../registry/upstream-reading.ts';
import { WrongBody } from '../../registry/wrong-body.ts';
import { contentOf, noise } from '../support/image.ts';
import { temporaryDirectory } from '../support/mirror.ts';

const layer = contentOf('application/octet-stream', noise(2_000_000));
const { digest } = layer;
const CHUNK_BYTES = 100_000;

/** A local disk that has room until so many bytes have come. */
class FilledDisk extends SpoolBudget {
  readonly #room: number;

  constructor(room: number) {
    super(Number.POSITIVE_INFINITY);
    this.#room = room;
  }

  override open(): SpoolAccount {
    const cover = (bytes: number): void => {
      if (bytes > this.#room) throw new SpoolFull('the disk is full');
    };
    return { reserve: () => undefined, cover, close: () => undefined };
  }
}

suite('a fill whose local disk becomes full amid it', () => {
  let directory: string;
  let hashes: HashPool;
  /** What the upstream sends, each time that it is asked. */
  let bodies: Buffer[];
  beforeEach(async () => {
    directory = await temporaryDirectory();
    hashes = new HashPool(1);
  });
  afterEach(async () => {
    await hashes.close();
    await rm(directory, { recursive: true, force: true });
  });

  /** What a client has been sent, who wants the whole; the disk is full once it has some of it. */
  const read = async (): Promise<Buffer> => {
    const sent: Buffer[] = [];
    const begun = Promise.withResolvers<void>();
    const signal = AbortSignal.timeout(20_000);
    const fetch = async (): Promise<UpstreamBody> => {
      const bytes = bodies.shift() ?? assert.fail('the upstream is asked once more');
      return {
        size: bytes.length,
        start: 0,
        version: undefined,
        chunks: chunksOf(bytes, (at) => (at < 1_000_000 ? undefined : begun.promise)),
        cancel: () => undefined,
        distrust: () => undefined,
      };
    };
    const fill = new Fill({
      digest,
      directory,
      hashes,
      budget: new FilledDisk(1_000_000),
      fetch,
      keep: () => assert.fail('it is stored'),
      without: (range, write, readerSignal) =>
        passThrough({ digest, fetch, range, write, signal: readerSignal }),
      onKeepFailed: () => undefined,
      signal,
    });
    const done = assert.rejects(fill.done, SpoolFull);
    const blob = await fill.reader();
    try {
      await blob.copyTo(
        async (chunk) => {
          sent.push(Buffer.from(chunk));
          if (Buffer.concat(sent).length > 500_000) begun.resolve();
        },
        { start: 0, end: blob.size - 1 },
        signal,
      );
    } finally {
      await blob.close();
      await done;
    }
    return Buffer.concat(sent);
  };

  test('gives its readers the rest by a second reading', async () => {
    bodies = [layer.bytes, layer.bytes];
    assert.ok((await read()).equals(layer.bytes));
  });

  test('completes nothing for a reader who was given wrong bytes before', async () => {
    const wrong = Buffer.from(layer.bytes);
    wrong.writeUInt8(wrong.readUInt8(1_000) ^ 1, 1_000);
    bodies = [wrong, layer.bytes];
    await assert.rejects(read(), WrongBody);
  });
});

async function* chunksOf(bytes: Buffer, goOn: (at: number) => Promise<void> | undefined) {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    await goOn(at);
    yield bytes.subarray(at, at + CHUNK_BYTES);
  }
}
