import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, open, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, mock, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { digestOf } from '../../oci/digest.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { HashPool } from '../../registry/hash-pool.ts';
import { Spool, SpoolFull, sweepSpool } from '../../registry/spool.ts';
import { SpoolBudget, WaitingBytes } from '../../registry/spool-budget.ts';
import { FragileStore } from '../support/fragile-store.ts';
import { contentOf, noise } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
const SWEEP_MS = 600_000;
const layer = contentOf('application/octet-stream', noise(2_000_000));

suite('blobs on their way', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror | undefined;
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.pushBlob(REPOSITORY, layer);
  });
  afterEach(async () => {
    upstream.fault = undefined;
    await mirror?.close();
    await upstream.stop();
  });

  const start = async (options: Parameters<typeof startMirror>[1]): Promise<string> => {
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" } }`, options);
    return `${mirror.url}/v2/${REPOSITORY}/blobs/${layer.digest}`;
  };

  test('are streamed through when the local disk has no room for them', async () => {
    const url = await start({ spoolLimit: 1_000_000 });
    const whole = await fetch(url);
    assert.equal(whole.headers.get('content-length'), String(layer.bytes.length));
    assert.ok(Buffer.from(await whole.arrayBuffer()).equals(layer.bytes));
    const part = await fetch(url, { headers: { range: 'bytes=10-1999999' } });
    assert.equal(part.status, 206);
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(layer.bytes.subarray(10)));
  });

  for (const [name, answer] of [
    ['is refused', (response: ServerResponse) => sendJson(response, 403, {})],
    ['tells no length', (response: ServerResponse) => response.writeHead(200).end()],
  ] as const)
    test(`are streamed through without room for them also where a HEAD ${name}`, async () => {
      const url = await start({ spoolLimit: 1_000_000 });
      let asked = 0;
      upstream.fault = (request, response) => {
        if (request.method === 'HEAD') answer(response);
        else if (++asked > 1) return false;
        else {
          response.writeHead(200, { 'content-type': layer.mediaType }).flushHeaders();
          response.end(layer.bytes);
        }
        return true;
      };
      assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(layer.bytes));
    });

  test('are not said to be missing when nobody tells their size and there is no room for them', async () => {
    const url = await start({ spoolLimit: 1_000_000 });
    upstream.fault = (request, response) => {
      if (request.method === 'HEAD') sendJson(response, 403, {});
      else {
        response.writeHead(200, { 'content-type': layer.mediaType }).flushHeaders();
        response.end(layer.bytes);
      }
      return true;
    };
    assert.equal((await fetch(url)).status, 503);
  });

  test('are streamed through when only their end shows that there is no room for them', async () => {
    const url = await start({ spoolLimit: 1_000_000 });
    let asked = 0;
    upstream.fault = (request, response) => {
      if (request.method !== 'GET' || ++asked > 1) return false;
      // Of unknown length, so that nobody knows beforehand that there is no room.
      response.writeHead(200, { 'content-type': layer.mediaType });
      response.end(layer.bytes);
      return true;
    };
    assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(layer.bytes));
  });

  test('are streamed through when the directory for them fails in another way than by being full', async () => {
    const url = await start({ spoolDirectory: '/dev/null/spool' });
    assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(layer.bytes));
  });

  test('are not swept while the store has not taken them, however long that lasts', async () => {
    const directory = await temporaryDirectory();
    mock.timers.enable({ apis: ['setInterval'] });
    const gate = Promise.withResolvers<void>();
    try {
      const real = await FilesystemStore.open(join(directory, 'store'));
      const store = new FragileStore(real);
      store.gates = new Map([['putFile', gate.promise]]);
      const url = await start({ store, spoolDirectory: real.temporaryDirectory });
      await (await fetch(url)).arrayBuffer();
      const [name = assert.fail()] = await readdir(real.temporaryDirectory);
      const path = join(real.temporaryDirectory, name);
      await utimes(path, 0, 0);
      mock.timers.tick(SWEEP_MS);
      while ((await stat(path)).mtimeMs === 0) await setTimeout(10);
      // Another process sweeps the same directory.
      await sweepSpool(real.temporaryDirectory);
      gate.resolve();
      while ((await real.stat(layer.digest)) === undefined) await setTimeout(10);
    } finally {
      mock.timers.reset();
      gate.resolve();
      await mirror?.close();
      mirror = undefined;
      await rm(directory, { recursive: true, force: true });
    }
  });

  test('are not completed for the client when they are wrong, also without room for them', async () => {
    const url = await start({ spoolLimit: 1_000_000 });
    upstream.fault = (request, response) => {
      if (request.method !== 'GET') return false;
      response.writeHead(200, { 'content-length': layer.bytes.length }).end(Buffer.alloc(layer.bytes.length));
      return true;
    };
    await assert.rejects(async () => (await fetch(url)).arrayBuffer());
  });

  test('are served while the store does not take them, and stored when it does', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-spool-'));
    try {
      const real = await FilesystemStore.open(join(directory, 'store'));
      const store = new FragileStore(real);
      store.broken = new Set(['putFile']);
      const url = await start({ store, spoolDirectory: real.temporaryDirectory });
      const pull = async () =>
        assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(layer.bytes));
      await pull();
      await pull();
      store.broken = new Set();
      while ((await real.stat(layer.digest)) === undefined) await setTimeout(20);
      assert.deepEqual(await real.stat(layer.digest), { size: layer.bytes.length });
      assert.equal(upstream.count('GET', layer.digest), 1);
    } finally {
      await mirror?.close();
      mirror = undefined;
      await rm(directory, { recursive: true, force: true });
    }
  });
});

suite('the pool of hashing threads', () => {
  test('gives the digests of files that grow, many at once', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-hash-'));
    const pool = new HashPool(2);
    try {
      await Promise.all(
        Array.from({ length: 8 }, async (_, index) => {
          await using file = await open(join(directory, String(index)), 'wx+');
          const algorithm = index % 2 === 0 ? 'sha256' : 'sha512';
          const hash = pool.follow(file.fd, algorithm);
          const bytes = noise(6_000_000 + index, index + 1);
          for (let at = 0; at < bytes.length; at += 1_000_000) {
            await file.write(bytes.subarray(at, at + 1_000_000), 0, undefined, at);
            hash.grown(Math.min(at + 1_000_000, bytes.length));
          }
          assert.equal(await hash.finish(bytes.length), digestOf(bytes, algorithm));
          await hash.release();
        }),
      );
    } finally {
      await pool.close();
      await rm(directory, { recursive: true, force: true });
    }
  });

  test('fails for a file that ends before it should, and goes on with others', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-hash-'));
    const pool = new HashPool(1);
    try {
      await using file = await open(join(directory, 'short'), 'wx+');
      await file.write('short');
      const short = pool.follow(file.fd, 'sha256');
      await assert.rejects(short.finish(6), /ends at byte 5/);
      await short.release();
      const right = pool.follow(file.fd, 'sha256');
      assert.equal(await right.finish(5), digestOf('short'));
      await right.release();
    } finally {
      await pool.close();
      await rm(directory, { recursive: true, force: true });
    }
  });
});

test('what a killed process left in the spool is swept, and what is on its way is not', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'weir-sweep-'));
  try {
    const [old, fresh] = [`weir-${randomUUID()}.spool`, `weir-${randomUUID()}.spool`];
    for (const name of [old, fresh, 'others.spool']) await writeFile(join(directory, name), 'x');
    await mkdir(join(directory, `weir-${randomUUID()}.spool`));
    for (const name of [old, 'others.spool']) await utimes(join(directory, name), 0, 0);
    await sweepSpool(directory);
    const left = await readdir(directory);
    assert.equal(left.length, 3);
    assert.ok(!left.includes(old) && left.includes(fresh) && left.includes('others.spool'));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test('the budget of the local disk is shared, and given back', () => {
  const budget = new SpoolBudget(100_000_000);
  const [first, second] = [budget.open(), budget.open()];
  first.reserve(60_000_000);
  assert.throws(() => second.reserve(60_000_000), SpoolFull);
  second.cover(1);
  assert.throws(() => second.cover(40_000_001), SpoolFull);
  first.close();
  second.reserve(90_000_000);
});

test('bodies wait for the disk one chunk at a time once together they fill the memory', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'weir-spool-'));
  const hashes = new HashPool(1);
  const waiting = new WaitingBytes();
  const spool = await Spool.open({
    directory,
    hashes,
    algorithm: 'sha256',
    waiting,
    onWritten: () => undefined,
  });
  try {
    await spool.append(Buffer.alloc(300_000, 1));
    assert.equal(spool.written, 0, 'one body alone does not wait');
    await spool.flush();
    waiting.add(60_000_000);
    await spool.append(Buffer.alloc(300_000, 1));
    assert.equal(spool.written, 600_000);
    waiting.remove(60_000_000);
    await spool.append(Buffer.alloc(300_000, 1));
    assert.equal(spool.written, 600_000);
    assert.equal(await spool.digest(), digestOf(Buffer.alloc(900_000, 1)));
    assert.equal(waiting.bytes, 0);
  } finally {
    await spool.close();
    await hashes.close();
    await rm(directory, { recursive: true, force: true });
  }
});
