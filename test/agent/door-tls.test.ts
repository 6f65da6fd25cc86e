import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { pino } from 'pino';
import type { ReplicaTrust } from '../../agent/door-trust.ts';
import { HealthGate } from '../../agent/health-gate.ts';
import { Authorities, trustIn as knownBy } from '../../process/authorities.ts';
import type { Identity } from '../../process/certificates.ts';
import { createMetrics } from '../../process/metrics.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { makeChain, makeIdentity } from '../support/certificates.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ask, openDoor, outcomes, stateOf, targetFor } from './opened-door.ts';
import { ok, portOf, startReplica, until } from './scripted-replica.ts';

const BLOB = `/v2/library/web/blobs/sha256:${'a'.repeat(64)}?ns=docker.io`;
const TIMINGS = { connect: 200, handshake: 5_000, silence: 50, look: 2_000, lookAgain: 20, retry: 30 };
const NAME = 'weir.weir.svc';
const HOUR_MS = 3_600_000;
const PERIOD = { from: new Date(Date.now() - HOUR_MS), to: new Date(Date.now() + HOUR_MS) };
const PAST = { from: new Date(Date.now() - 3 * HOUR_MS), to: new Date(Date.now() - HOUR_MS) };
const FUTURE = { from: new Date(Date.now() + HOUR_MS), to: new Date(Date.now() + 3 * HOUR_MS) };
const authority = makeAuthority('test', PERIOD);
const another = makeAuthority('another', PERIOD);
const good = issue(authority, [NAME], PERIOD);

const trustIn = (ca: string): ReplicaTrust => ({ context: createSecureContext({ ca }), serverName: NAME });
const opened = (t: TestContext, ...replicas: readonly { readonly port: number }[]) =>
  openDoor(t, replicas, { trust: () => trustIn(authority.cert), timings: TIMINGS });

const say = (text: string) => (socket: Socket) => socket.write(ok(text));

suite('the certificate of a replica', { concurrency: true }, () => {
  const wrong: Readonly<Record<string, readonly [identity: Identity, reason: RegExp]>> = {
    'of another authority': [
      issue(another, [NAME], PERIOD),
      /its certificate is of an authority that is not in --registry-ca/,
    ],
    'for another name': [
      issue(authority, ['weir.other.svc'], PERIOD),
      /its certificate is not for weir\.weir\.svc \(.*weir\.other\.svc/,
    ],
    'that has expired': [issue(authority, [NAME], PAST), /its certificate has expired/],
    'that is not valid yet': [issue(authority, [NAME], FUTURE), /its certificate is not valid yet/],
  };
  for (const [what, [identity, reason]] of Object.entries(wrong))
    test(`${what} puts it aside for that reason, and pulls ask the other one`, async (t) => {
      const ill = await startReplica(t, (socket) => socket.write(ok('ill')), identity);
      const other = await startReplica(t, (socket) => socket.write(ok('well')), good);
      const { door } = await opened(t, ill, other);
      assert.equal((await ask(door, targetFor(door, ill))).body, 'well');
      assert.match(door.state()[0]?.reason ?? '', reason);
      await other.stop();
      await ask(door, BLOB);
      const { status, body } = await ask(door, BLOB);
      assert.equal(status, 503);
      assert.match(body, /no replica of the registry is ready; /);
      assert.match(body, reason);
      assert.equal(ill.requests.length, 0);
      assert.equal(ill.looks, 0);
    });

  test('that is wrong has the mirror withdrawn, with the reason', async (t) => {
    const expired = issue(authority, [NAME], PAST);
    const replica = await startReplica(t, (socket) => socket.write(ok('hello')), expired);
    const { door } = await opened(t, replica);
    const ill = Promise.withResolvers<void>();
    const gate = new HealthGate({
      mirror: door.url,
      metrics: createMetrics(),
      log: pino({ level: 'silent' }),
      onChange: ill.resolve,
      timings: { interval: 5 },
    });
    t.after(() => gate.close());
    await ill.promise;
    assert.match(gate.illness ?? '', /answers 503: .*no replica .* is ready; .*its certificate has expired/);
  });

  test('is asked for by its name, and found good again once it is renewed', async (t) => {
    const replica = await startReplica(
      t,
      (socket) => socket.write(ok('hello')),
      issue(another, [NAME], PERIOD),
    );
    const { door } = await opened(t, replica);
    assert.equal((await ask(door, BLOB)).status, 503);
    replica.renew(good);
    await until(() => stateOf(door)[0] === 'ready');
    assert.equal((await ask(door, BLOB)).body, 'hello');
  });

  test('is for its address, where no other name is known', async (t) => {
    const directory = await makeScratch();
    t.after(() => removeScratch(directory));
    const { ca, ...identity } = await makeIdentity(directory, ['IP:127.0.0.1']);
    const replica = await startReplica(t, (socket) => socket.write(ok('hello')), identity);
    const trust = () => ({ context: createSecureContext({ ca }) });
    const { door } = await openDoor(t, [replica], { trust, timings: TIMINGS });
    assert.equal((await ask(door, BLOB)).body, 'hello');
    replica.renew(good);
    door.setReplicas([]);
    door.setReplicas([{ host: '127.0.0.1', port: replica.port }]);
    assert.equal((await ask(door, BLOB)).status, 503);
    assert.match(door.state()[0]?.reason ?? '', /authority/);
  });

  test('is known by an authority that is itself signed by another, and is to come with all in between', async (t) => {
    const directory = await makeScratch();
    t.after(() => removeScratch(directory));
    const { root, issuer, cert, key } = await makeChain(directory, [`DNS:${NAME}`]);
    const replica = await startReplica(t, say('hello'), { cert, key });
    const trust = (ca: string) => () => ({ context: createSecureContext(knownBy(ca)), serverName: NAME });
    const { door } = await openDoor(t, [replica], { trust: trust(issuer), timings: TIMINGS });
    assert.equal((await ask(door, BLOB)).body, 'hello');
    const { door: strict } = await openDoor(t, [replica], { trust: trust(root), timings: TIMINGS });
    const { status, body } = await ask(strict, BLOB);
    assert.equal(status, 503);
    assert.match(body, /not in --registry-ca, or comes without those of the authorities in between \(/);
    assert.doesNotMatch(body, /Node\.js/);
    replica.renew({ cert: cert + issuer, key });
    await until(() => stateOf(strict)[0] === 'ready');
    assert.equal((await ask(strict, BLOB)).body, 'hello');
  });

  test('may be of the authorities before and after, while they change', async (t) => {
    const directory = await makeScratch();
    t.after(() => removeScratch(directory));
    const file = join(directory, 'ca.crt');
    await writeFile(file, authority.cert);
    const authorities = await Authorities.open(file, pino({ level: 'silent' }), 5);
    t.after(() => authorities.close());
    const before = await startReplica(t, say('before'), good);
    const after = await startReplica(t, say('after'), issue(another, [NAME], PERIOD));
    const trust = () => ({ context: authorities.context, serverName: NAME });
    const { door } = await openDoor(t, [before, after], { trust, timings: TIMINGS });
    assert.equal((await ask(door, targetFor(door, after))).body, 'before');
    await writeFile(file, another.cert);
    await until(() => stateOf(door)[1] === 'ready');
    assert.equal((await ask(door, targetFor(door, after))).body, 'after');
    // A new connection is of the authorities of now, and those before.
    door.setReplicas([]);
    door.setReplicas([before, after].map(({ port }) => ({ host: '127.0.0.1', port })));
    assert.equal((await ask(door, targetFor(door, before))).body, 'before');
    await writeFile(file, 'nonsense');
    assert.equal((await ask(door, targetFor(door, after))).body, 'after');
  });
});

suite('TLS with a replica', { concurrency: true }, () => {
  test('that hangs in the handshake costs a pull no more than the time for that', async (t) => {
    const hanging = createServer((socket) => socket.on('error', () => undefined)).listen(0, '127.0.0.1');
    await new Promise((resolve) => hanging.once('listening', resolve));
    t.after(() => hanging.close());
    const other = await startReplica(t, (socket) => socket.write(ok('from the other')), good);
    const timings = { ...TIMINGS, handshake: 200, look: 300 };
    const { door, metrics } = await openDoor(t, [{ port: portOf(hanging) }, other], {
      trust: () => trustIn(authority.cert),
      timings,
    });
    assert.equal((await ask(door, targetFor(door, { port: portOf(hanging) }))).body, 'from the other');
    assert.match(door.state()[0]?.reason ?? '', /no TLS handshake within \d+ ms|did not answer within/);
    assert.equal(await outcomes(metrics), 'forwarded 1');
  });

  test('has the time that the connection did not need, as a replica that is busy needs it', async (t) => {
    const replica = await startReplica(t, say('busy'), good);
    const busy = createServer((socket) => {
      const behind = connect(replica.port, '127.0.0.1');
      for (const one of [socket, behind]) one.on('error', () => undefined);
      behind.pipe(socket);
      void pause(20).then(() => socket.pipe(behind));
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => busy.once('listening', resolve));
    t.after(() => busy.close());
    const { door } = await openDoor(t, [{ port: portOf(busy) }], {
      trust: () => trustIn(authority.cert),
      timings: { ...TIMINGS, connect: 5_000, handshake: 1 },
    });
    assert.equal((await ask(door, BLOB)).body, 'busy');
  });

  test('that speaks none is said to be missing', async (t) => {
    const answers = createServer((socket) =>
      socket.on('error', () => undefined).once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
    ).listen(0, '127.0.0.1');
    await new Promise((resolve) => answers.once('listening', resolve));
    t.after(() => answers.close());
    const { door } = await opened(t, { port: portOf(answers) });
    assert.equal((await ask(door, BLOB)).status, 503);
    assert.match(door.state()[0]?.reason ?? '', /it does not speak TLS \(wrong version number\)$/);
  });

  test('that comes to no terms is told of in a line, without what OpenSSL adds', async (t) => {
    const replica = await startReplica(t, say('hello'), good);
    const old = createSecureContext({
      ca: authority.cert,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    const trust = () => ({ context: old, serverName: NAME });
    const { door } = await openDoor(t, [replica], { trust, timings: TIMINGS });
    assert.equal((await ask(door, BLOB)).status, 503);
    assert.match(
      door.state()[0]?.reason ?? '',
      /: there is no TLS with it \(tlsv1 alert protocol version\)$/,
    );
  });

  test('is none that the replica ends without a word', async (t) => {
    const closing = createServer((socket) =>
      socket.on('error', () => undefined).once('data', () => socket.destroy()),
    ).listen(0, '127.0.0.1');
    await new Promise((resolve) => closing.once('listening', resolve));
    t.after(() => closing.close());
    const { door, metrics } = await opened(t, { port: portOf(closing) });
    assert.equal((await ask(door, BLOB)).status, 503);
    assert.equal(await outcomes(metrics), 'failed 1');
    assert.deepEqual(stateOf(door), ['aside']);
  });

  test('carries records of every size, and none is mistaken for another', async (t) => {
    const sizes = [1, 2, 100, 1000, 16_383, 16_384, 16_385, 70_000, 400_000, 3, 1_000_000];
    const body = Buffer.concat(sizes.map((size, at) => Buffer.alloc(size, `${at};`)));
    const replica = await startReplica(
      t,
      (socket) => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
        let from = 0;
        // The first ones one by one, the later ones all at once.
        void (async () => {
          for (const [at, size] of sizes.entries()) {
            socket.write(body.subarray(from, from + size));
            from += size;
            if (at < 6) await new Promise(setImmediate);
          }
        })();
      },
      good,
    );
    const { door } = await opened(t, replica);
    for (let round = 0; round < 5; round++) assert.ok((await ask(door, BLOB)).body === body.toString());
    assert.equal(replica.connections, 1);
  });

  test('is begun anew where the replica had ended the connection that was kept', async (t) => {
    const replica = await startReplica(
      t,
      (socket, nth) => (nth === 1 ? socket.destroy() : socket.write(ok(`answer ${nth}`))),
      good,
    );
    const { door } = await opened(t, replica);
    assert.equal((await ask(door, BLOB)).body, 'answer 0');
    assert.equal((await ask(door, BLOB)).body, 'answer 2');
    assert.equal(replica.connections, 2);
    assert.deepEqual(stateOf(door), ['ready']);
  });

  test('is begun anew after the replica died amid an answer, and the client is told of an early end', async (t) => {
    const replica = await startReplica(
      t,
      (socket, nth) => {
        if (nth > 0) socket.write(ok('whole'));
        else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', () => void replica.stop());
      },
      good,
    );
    const { door } = await opened(t, replica);
    const { body, isWhole } = await ask(door, BLOB);
    assert.deepEqual([body, isWhole], ['hello', false]);
    await replica.start();
    await until(async () => (await ask(door, BLOB)).body === 'whole');
  });
});
