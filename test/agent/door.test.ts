import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { pino } from 'pino';
import { Door } from '../../agent/door.ts';
import { createMetrics } from '../../process/metrics.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import {
  ask,
  metricOf,
  openDoor,
  outcomes,
  rawAnswer,
  responseTo,
  stateOf,
  targetFor,
} from './opened-door.ts';
import { ok, portOf, reset, type Script, startBlackHole, startReplica, until } from './scripted-replica.ts';

const BLOB = `/v2/library/web/blobs/sha256:${'a'.repeat(64)}?ns=docker.io`;
const TIMINGS = { connect: 200, handshake: 5_000, silence: 50, look: 300, lookAgain: 20, retry: 30 };
const NAME = 'weir.weir.svc';
const PERIOD = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
const authority = makeAuthority('test', PERIOD);
const identity = issue(authority, [NAME], PERIOD);
const context = createSecureContext({ ca: authority.cert });
const trust = () => ({ context, serverName: NAME });

type Replicas = readonly { readonly port: number }[];
const plain = {
  replicaWith: (t: TestContext, script: Script) => startReplica(t, script),
  doorTo: (t: TestContext, ...replicas: Replicas) => openDoor(t, replicas, { timings: TIMINGS }),
};
const secure: typeof plain = {
  replicaWith: (t, script) => startReplica(t, script, identity),
  doorTo: (t, ...replicas) => openDoor(t, replicas, { trust, timings: TIMINGS }),
};
const WAYS = { 'without TLS': plain, 'over TLS': secure };

for (const [way, { replicaWith, doorTo }] of Object.entries(WAYS))
  suite(`a door that asks its replicas ${way}`, () => {
    test('a pull is handed on and its answer comes back as it was', async (t) => {
      const replica = await replicaWith(t, (socket) =>
        socket.write(
          'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/10\r\nConnection: keep-alive\r\nKeep-Alive: timeout=7\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\nhello',
        ),
      );
      const { door, metrics } = await doorTo(t, replica);
      const answer = await ask(door, BLOB, { headers: { range: 'bytes=5-', authorization: 'Bearer x' } });
      assert.equal(answer.status, 206);
      assert.equal(answer.body, 'hello');
      assert.equal(answer.headers['content-range'], 'bytes 5-9/10');
      assert.equal(answer.headers['x-twice'], '1, 2');
      assert.notEqual(answer.headers['keep-alive'], 'timeout=7', 'this one is about the other connection');
      const [head = ''] = replica.requests;
      assert.ok(head.startsWith(`GET ${BLOB} HTTP/1.1\r\n`), head);
      assert.match(head, /^range: bytes=5-\r$/m);
      assert.match(head, /^authorization: Bearer x\r$/m);
      assert.equal(await outcomes(metrics), 'forwarded 1');
      assert.equal(await metricOf(metrics, 'weir_door_bytes_total'), 5);
    });

    test('a HEAD gives the length of what a GET would, and no body', async (t) => {
      const replica = await replicaWith(t, (socket) =>
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDocker-Content-Digest: sha256:a\r\n\r\n'),
      );
      const { door } = await doorTo(t, replica);
      for (let at = 0; at < 3; at++) {
        const { status, headers, body } = await ask(door, BLOB, { method: 'HEAD' });
        assert.deepEqual([status, headers['content-length'], body], [200, '5', '']);
        assert.equal(headers['docker-content-digest'], 'sha256:a');
      }
      assert.equal(replica.connections, 1);
    });

    test('a connection to a replica is used again, after answers of every form', async (t) => {
      const forms = [
        'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n',
        'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n',
        'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
      ];
      const replica = await replicaWith(t, (socket, nth) => {
        // A byte at a time, so that every piece is one that ends somewhere inside.
        void (async () => {
          for (const byte of Buffer.from(forms[nth] ?? '')) {
            socket.write(Buffer.from([byte]));
            await new Promise(setImmediate);
          }
        })();
      });
      const { door } = await doorTo(t, replica);
      for (const expected of ['200 hello', '200 hello', '404 ', '200 hello']) {
        const { status, body } = await ask(door, BLOB);
        assert.equal(`${status} ${body}`, expected);
      }
      assert.equal(replica.connections, 1);
    });

    test('an answer that ends with its connection is whole, and the connection is not used again', async (t) => {
      const replica = await replicaWith(t, (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nhello'));
      const { door } = await doorTo(t, replica);
      assert.equal((await ask(door, BLOB)).body, 'hello');
      assert.equal((await ask(door, BLOB)).body, 'hello');
      assert.equal(replica.connections, 2);
    });

    test('a kept connection that the replica has closed costs no pull', async (t) => {
      const onConnection = new WeakMap<Socket, number>();
      const replica = await replicaWith(t, (socket) => {
        const nth = (onConnection.get(socket) ?? 0) + 1;
        onConnection.set(socket, nth);
        if (nth === 1) socket.write(ok('hello'));
        else reset(socket);
      });
      const { door, metrics } = await doorTo(t, replica);
      for (let at = 0; at < 4; at++) assert.equal((await ask(door, BLOB)).body, 'hello');
      assert.equal(replica.connections, 4);
      assert.deepEqual(stateOf(door), ['ready']);
      assert.equal(await outcomes(metrics), 'forwarded 4');
    });

    test('without a replica the answer is 503, at once', async (t) => {
      const { door, metrics } = await doorTo(t);
      const { status, body } = await ask(door, BLOB);
      assert.equal(status, 503);
      assert.match(body, /"UNAVAILABLE".*no replica/);
      assert.equal(await outcomes(metrics), 'no_replica 1');
    });

    test('a refused connection moves a pull to the other replica, and the replica is asked again once it lives', async (t) => {
      const ill = await replicaWith(t, (socket) => socket.write(ok('from the one that was ill')));
      const other = await replicaWith(t, (socket) => socket.write(ok('from the other')));
      const { door, metrics } = await doorTo(t, ill, other);
      const target = targetFor(door, ill);
      await ill.stop();
      assert.equal((await ask(door, target)).body, 'from the other');
      assert.deepEqual(stateOf(door), ['aside', 'ready']);
      assert.equal(await metricOf(metrics, 'weir_door_replicas', { state: 'aside' }), 1);
      await ill.start();
      await until(() => stateOf(door)[0] === 'ready');
      assert.equal((await ask(door, target)).body, 'from the one that was ill');
    });

    test('when every replica refuses, the first pull is answered 503, and the next ones ask nobody', async (t) => {
      const one = await replicaWith(t, (socket) => socket.write(ok('one')));
      const two = await replicaWith(t, (socket) => socket.write(ok('two')));
      const { door, metrics } = await doorTo(t, one, two);
      await Promise.all([one.stop(), two.stop()]);
      assert.equal((await ask(door, BLOB)).status, 503);
      assert.deepEqual(stateOf(door), ['aside', 'aside']);
      assert.equal((await ask(door, BLOB)).status, 503);
      assert.equal(await outcomes(metrics), 'failed 1, no_replica 1');
    });

    for (const [name, end] of [
      ['resets', (socket: Socket) => reset(socket)],
      ['closes', (socket: Socket) => socket.end()],
      ['talks nonsense on', (socket: Socket) => socket.write('SSH-2.0-OpenSSH_9.6\r\n\r\n')],
      ['cuts its head on', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-')],
    ] as const) {
      test(`a replica that ${name} each connection is put aside, and the other one answers`, async (t) => {
        const ill = await replicaWith(t, end);
        ill.livez = 'none';
        const other = await replicaWith(t, (socket) => socket.write(ok('from the other')));
        const { door } = await doorTo(t, ill, other);
        const target = targetFor(door, ill);
        for (let at = 0; at < 3; at++) assert.equal((await ask(door, target)).body, 'from the other');
        assert.equal(ill.requests.length, 1);
        assert.deepEqual(stateOf(door), ['aside', 'ready']);
      });
    }

    test('a replica that hangs is found out by its silent /livez, and only the first pull waits for that', async (t) => {
      const hanging = await replicaWith(t, () => undefined);
      hanging.livez = 'none';
      const other = await replicaWith(t, (socket) => socket.write(ok('from the other')));
      const { door, metrics } = await doorTo(t, hanging, other);
      const target = targetFor(door, hanging);
      assert.equal((await ask(door, target)).body, 'from the other');
      assert.equal((await ask(door, target)).body, 'from the other');
      assert.equal(hanging.requests.length, 1);
      assert.deepEqual(stateOf(door), ['aside', 'ready']);
      await other.stop();
      assert.equal((await ask(door, target)).status, 503);
      assert.equal(await outcomes(metrics), 'failed 1, forwarded 2');
    });

    test('when every replica hangs, pulls are answered 503 and counted as met by silence', async (t) => {
      const replicas = await Promise.all([1, 2, 3].map(() => replicaWith(t, () => undefined)));
      for (const replica of replicas) replica.livez = 'none';
      const { door, metrics } = await doorTo(t, ...replicas);
      const answers = await Promise.all(Array.from({ length: 10 }, () => ask(door, BLOB)));
      assert.ok(answers.every(({ status }) => status === 503));
      // The others were not tried, only looked at, and not by each pull for itself.
      const asked = replicas.filter(({ requests }) => requests.length > 0);
      assert.equal(asked.length, 1);
      for (const { looks } of replicas) assert.ok(looks < 10, `${looks} looks`);
      assert.equal((await ask(door, BLOB)).status, 503);
      assert.equal(await outcomes(metrics), 'no_replica 1, silent 10');
    });

    test('packets that vanish on the way cost a pull no more than the time for a connection', async (t) => {
      const port = await startBlackHole(t);
      const other = await replicaWith(t, (socket) => socket.write(ok('from the other')));
      const { door } = await doorTo(t, { port }, other);
      const target = targetFor(door, { port });
      assert.equal((await ask(door, target)).body, 'from the other');
      assert.deepEqual(stateOf(door), ['aside', 'ready']);
    });

    test('an answer that is slow to come is waited for as long as the replica lives', async (t) => {
      const replica = await replicaWith(t, async (socket) => {
        await until(() => replica.looks >= 5);
        socket.write(ok('at last'));
      });
      const { door, metrics } = await doorTo(t, replica);
      const { status, body } = await ask(door, BLOB);
      assert.deepEqual([status, body], [200, 'at last']);
      assert.equal(await outcomes(metrics), 'forwarded 1');
    });

    test('a replica that dies while its slow answer is waited for is noticed', async (t) => {
      const replica = await replicaWith(t, async () => {
        await until(() => replica.looks >= 2);
        replica.livez = 'none';
      });
      const { door, metrics } = await doorTo(t, replica);
      assert.equal((await ask(door, BLOB)).status, 503);
      assert.equal(await outcomes(metrics), 'silent 1');
    });

    test('however many pulls wait for one replica, it is asked for signs of life one at a time', async (t) => {
      let atOnce = 0;
      let most = 0;
      const replica = await replicaWith(t, async (socket) => {
        await until(() => replica.looks >= 10);
        socket.write(ok('at last'));
      });
      replica.onLook = (isBegin) => {
        atOnce += isBegin ? 1 : -1;
        most = Math.max(most, atOnce);
      };
      const { door } = await doorTo(t, replica);
      const answers = await Promise.all(Array.from({ length: 20 }, () => ask(door, BLOB)));
      assert.ok(answers.every(({ body }) => body === 'at last'));
      assert.equal(most, 1);
    });

    test('a body that pauses is waited for while the replica lives', async (t) => {
      const replica = await replicaWith(t, async (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello');
        await until(() => replica.looks >= 3);
        socket.write('world');
      });
      const { door } = await doorTo(t, replica);
      const { body, isWhole } = await ask(door, BLOB);
      assert.deepEqual([body, isWhole], ['helloworld', true]);
    });

    test('a body that stalls on a dead replica ends early with a plain close, so that the client asks for the rest', async (t) => {
      const replica = await replicaWith(t, (socket) => {
        replica.livez = 'none';
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello');
      });
      const { door, metrics } = await doorTo(t, replica);
      // containerd resumes after an early end, but not after a reset, on which this would throw.
      const raw = await rawAnswer(door, `GET ${BLOB} HTTP/1.1\r\nHost: a\r\n\r\n`);
      assert.match(raw, /^HTTP\/1\.1 200 (?:.*\r\n)+\r\nhello$/);
      assert.deepEqual(stateOf(door), ['aside']);
      assert.equal(await outcomes(metrics), 'silent 1');
    });

    test('an answer that the replica cuts short never looks whole, and the replica stays in use while it lives', async (t) => {
      const cut = [
        'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n',
      ];
      const replica = await replicaWith(t, (socket, nth) => socket.end(cut[nth] ?? ok('whole')));
      const { door } = await doorTo(t, replica);
      for (const _ of cut) {
        const { body, isWhole } = await ask(door, BLOB);
        assert.deepEqual([body, isWhole], ['hello', false]);
      }
      assert.equal((await ask(door, BLOB)).body, 'whole');
      assert.deepEqual(stateOf(door), ['ready']);
    });

    test('5xx is passed on as it is, while 408 and 429 become 503, which containerd does not repeat', async (t) => {
      const statuses = [500, 502, 503, 504, 408, 429];
      const replica = await replicaWith(t, (socket, nth) =>
        socket.write(`HTTP/1.1 ${statuses[nth]} Reason\r\nContent-Length: 1\r\n\r\nx`),
      );
      const { door } = await doorTo(t, replica);
      const seen: number[] = [];
      for (const _ of statuses) seen.push((await ask(door, BLOB)).status);
      assert.deepEqual(seen, [500, 502, 503, 504, 503, 503]);
      assert.deepEqual(stateOf(door), ['ready']);
    });

    test('a client that leaves ends the request at the replica, before and amid the answer', async (t) => {
      for (const answer of ['', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello']) {
        const asked = Promise.withResolvers<Socket>();
        const replica = await replicaWith(t, (socket) => {
          socket.write(answer);
          asked.resolve(socket);
        });
        const { door, metrics } = await doorTo(t, replica);
        const client = httpRequest(door.url + BLOB);
        client.on('error', () => undefined);
        client.end();
        const socket = await asked.promise;
        const closed = once(socket, 'close');
        if (answer !== '') await responseTo(client);
        client.destroy();
        await closed;
        await until(async () => (await outcomes(metrics)) === 'left 1');
        assert.deepEqual(stateOf(door), ['ready']);
      }
    });

    test('a client that takes nothing holds the replica back, and gets every byte in the end', async (t) => {
      const piece = Buffer.alloc(1024 * 1024, 'x');
      const pieces = 96;
      let sent = 0;
      const replica = await replicaWith(t, async (socket) => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${piece.length * pieces}\r\n\r\n`);
        for (; sent < pieces; sent++) if (!socket.write(piece)) await once(socket, 'drain');
      });
      const { door } = await doorTo(t, replica);
      const client = httpRequest(door.url + BLOB);
      client.end();
      const response = await responseTo(client);
      response.pause();
      let before = -1;
      await until(async () => {
        const isStill = sent === before;
        before = sent;
        await pause(200);
        return isStill;
      });
      assert.ok(sent < pieces / 2, `${sent} of ${pieces} MiB were read for a client that took none`);
      // It is the client who is slow: that must not be held against a replica, alive or not.
      replica.livez = 'none';
      await pause(2 * (TIMINGS.silence + TIMINGS.look));
      replica.livez = 'ok';
      let received = 0;
      for await (const chunk of response) received += Buffer.isBuffer(chunk) ? chunk.length : 0;
      assert.equal(received, piece.length * pieces);
    });

    test('bytes arrive unchanged, many bodies at once', async (t) => {
      const bodies = Array.from({ length: 12 }, (_, nth) => Buffer.alloc(3_000_000 + nth * 1111, `${nth}, `));
      const replica = await replicaWith(t, async (socket, _, head) => {
        const body = bodies[Number(/blobs\/(\d+)/.exec(head)?.[1])] ?? Buffer.alloc(0);
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
        for (let at = 0; at < body.length; at += 70_001)
          if (!socket.write(body.subarray(at, at + 70_001))) await once(socket, 'drain');
      });
      const { door } = await doorTo(t, replica);
      const got = await Promise.all(bodies.map((_, nth) => ask(door, `/v2/a/blobs/${nth}`)));
      for (const [nth, { body }] of got.entries()) assert.ok(body === bodies[nth]?.toString(), `body ${nth}`);
    });

    test('one repository is asked of one replica, and all repositories of all replicas', async (t) => {
      const replicas = await Promise.all(
        ['a', 'b', 'c'].map((name) => replicaWith(t, (socket) => socket.write(ok(name)))),
      );
      const { door } = await doorTo(t, ...replicas);
      const asked = async (repository: string): Promise<string> => {
        const paths = [`/v2/${repository}/manifests/latest`, `/v2/${repository}/blobs/sha256:0?ns=ghcr.io`];
        const answers = await Promise.all(paths.map((path) => ask(door, path)));
        assert.equal(answers[0]?.body, answers[1]?.body);
        return answers[0]?.body ?? '';
      };
      const names = await Promise.all(Array.from({ length: 30 }, (_, nth) => asked(`library/image${nth}`)));
      assert.deepEqual([...new Set(names)].toSorted(), ['a', 'b', 'c']);
    });

    test('replicas come and go under load, and no pull notices', async (t) => {
      const body = 'x'.repeat(200_000);
      const replicas = await Promise.all(
        [1, 2, 3].map(() => replicaWith(t, (socket) => socket.write(ok(body)))),
      );
      const { door, metrics } = await doorTo(t, ...replicas);
      const over = new AbortController();
      const load = Array.from({ length: 4 }, async (_, worker) => {
        for (let nth = 0; !over.signal.aborted; nth++) {
          const answer = await ask(door, `/v2/image${worker}-${nth}/blobs/x`);
          assert.equal(answer.body.length, body.length);
        }
      });
      for (let change = 0; change < 30; change++) {
        door.setReplicas(replicas.filter((_, at) => at !== change % 3));
        await pause(5);
      }
      over.abort();
      await Promise.all(load);
      assert.match(await outcomes(metrics), /^forwarded \d+$/);
      assert.equal(door.state().length, 2);
      door.setReplicas([]);
      await until(() => replicas.every(({ open }) => open === 0));
    });

    test('a port that is taken is named with the way out, and can be had once it is free', async (t) => {
      const holder = createServer().listen(0, '127.0.0.1');
      await once(holder, 'listening');
      const port = portOf(holder);
      const options = {
        address: { host: '127.0.0.1', port },
        metrics: createMetrics(),
        log: pino({ level: 'silent' }),
      };
      await assert.rejects(
        Door.open(options),
        (error: Error) =>
          error.message.includes(`127.0.0.1:${port}`) &&
          error.message.includes('another process') &&
          error.message.includes('door.port') &&
          error.message.includes('--door'),
      );
      assert.ok(holder.listening);
      holder.close();
      await once(holder, 'close');
      const door = await Door.open(options);
      t.after(() => door.close());
      assert.equal(door.url, `http://127.0.0.1:${port}`);
    });

    test('pulls beyond what fits into the memory of an agent are answered 503, and the others get their bytes', async (t) => {
      const waiting: Socket[] = [];
      const replica = await replicaWith(t, (socket) => waiting.push(socket));
      const { door, metrics } = await doorTo(t, replica);
      const answers = Array.from({ length: 140 }, () => ask(door, BLOB));
      await until(async () => (await outcomes(metrics)) === 'refused 12');
      await until(() => waiting.length === 128);
      for (const socket of waiting) socket.write(ok('hello'));
      const statuses = (await Promise.all(answers)).map(({ status }) => status);
      assert.equal(statuses.filter((status) => status === 200).length, 128);
      assert.equal(statuses.filter((status) => status === 503).length, 12);
    });

    test('what is no pull is answered by the door itself', async (t) => {
      const replica = await replicaWith(t, (socket) => socket.write(ok('hello')));
      const { door, metrics } = await doorTo(t, replica);
      const answers = [
        await ask(door, '/metrics'),
        await ask(door, BLOB, { method: 'PUT' }),
        await ask(door, '/v2/%2e%2e/x'),
      ];
      assert.deepEqual(
        answers.map(({ status }) => status),
        [404, 405, 400],
      );
      assert.equal(answers[1]?.headers.allow, 'GET, HEAD');
      const raw = await rawAnswer(
        door,
        'GET http://127.0.0.1/v2/a/blobs/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
      );
      assert.match(raw, /^HTTP\/1\.1 400 /);
      assert.equal(replica.requests.length, 0);
      assert.equal(await outcomes(metrics), 'refused 4');
    });

    test('a closed door gives its port back and leaves no connection', async (t) => {
      const replica = await replicaWith(t, (socket) => socket.write(ok('hello')));
      const { door } = await doorTo(t, replica);
      await ask(door, BLOB);
      await door.close();
      const again = createServer().listen(Number(new URL(door.url).port), '127.0.0.1');
      await once(again, 'listening');
      again.close();
      await until(() => replica.open === 0);
    });
  });
