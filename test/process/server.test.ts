import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { connect as connectSecurely } from 'node:tls';
import { pino } from 'pino';
import { UsageError } from '../../process/lifecycle.ts';
import { parseAddress, serve, urlOf } from '../../process/server.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { getSecurely } from '../support/https.ts';

const log = pino({ level: 'silent' });
const NAME = 'weir.weir.svc';
const PERIOD = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
const LOOPBACK = { host: '127.0.0.1', port: 0 };

test('addresses are read, and told as URLs that lead there', () => {
  const table = {
    '127.0.0.1:5000': 'http://127.0.0.1:5000',
    '[::1]:80': 'http://[::1]:80',
    ':5000': 'http://127.0.0.1:5000',
    '0.0.0.0:1': 'http://127.0.0.1:1',
    '[::]:1': 'http://[::1]:1',
    'node-1:0': 'http://node-1:0',
  };
  for (const [text, url] of Object.entries(table)) assert.equal(urlOf(parseAddress(text)), url);
  for (const text of ['', '5000', 'a:b', '::1:80', '[x]:1', '1.2.3.4:70000', 'a:1:2'])
    assert.throws(() => parseAddress(text), UsageError, text);
});

test('an address that is taken is named', async () => {
  const first = await serve(() => {}, LOOPBACK, log);
  await assert.rejects(
    serve(() => {}, first.address, log),
    new RegExp(`cannot listen on 127.0.0.1:${first.address.port}`),
  );
  await first.drain();
});

test('draining lets an answer that has begun finish, and waits for nothing more', {
  timeout: 10_000,
}, async () => {
  const asked = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const server = await serve(
    (_, response) => {
      asked.resolve();
      response.write('first ');
      void goOn.promise.then(() => response.end('last'));
    },
    LOOPBACK,
    log,
  );
  const answer = fetch(urlOf(server.address));
  await asked.promise;
  const drained = server.drain();
  goOn.resolve();
  assert.equal(await (await answer).text(), 'first last');
  await drained;
});

test('a client that sends one request after the other without waiting is cut off', {
  timeout: 10_000,
}, async () => {
  let asked = 0;
  const count = (): void => {
    asked += 1;
  };
  const server = await serve(count, LOOPBACK, log);
  const client = connect(server.address.port, LOOPBACK.host);
  client.on('error', () => {});
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(500));
  await once(client.resume(), 'close');
  assert.ok(asked <= 4, `${asked} requests were handed over`);
  await server.drain();
});

test('a client that connected and asked nothing does not delay the end', { timeout: 10_000 }, async () => {
  const server = await serve((_, response) => response.end(), LOOPBACK, log);
  const client = connect(server.address.port, LOOPBACK.host);
  await once(client, 'connect');
  // An answered request shows that the listener has taken the connection before it as well.
  await fetch(urlOf(server.address));
  await server.drain();
  await once(client.resume(), 'close');
});

test('over TLS there is HTTP/1.1 alone, of TLS 1.2 and newer, with the certificate of now', async (t) => {
  const authority = makeAuthority('test', PERIOD);
  const renewals = new Set<() => void>();
  let identity = issue(authority, [NAME], PERIOD);
  const certificate = {
    get identity() {
      return identity;
    },
    subscribe(renewed: () => void) {
      renewals.add(renewed);
      return () => renewals.delete(renewed);
    },
  };
  const server = await serve((_, response) => void response.end('hello'), LOOPBACK, log, certificate);
  t.after(() => server.drain());
  const url = urlOf(server.address, 'https');
  const trust = { ca: authority.cert, servername: NAME };
  const first = await getSecurely(url, trust);
  assert.deepEqual([first.body, first.protocol, first.alpn], ['hello', 'TLSv1.3', 'http/1.1']);
  await assert.rejects(fetch(urlOf(server.address)), 'without TLS there is nothing');
  const { port } = server.address;
  const old = connectSecurely({
    ...trust,
    host: '127.0.0.1',
    port,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
  });
  await assert.rejects(once(old, 'secureConnect'));
  const kept = connectSecurely({ ...trust, host: '127.0.0.1', port });
  await once(kept, 'secureConnect');
  identity = issue(authority, [NAME], PERIOD);
  for (const renewed of renewals) renewed();
  assert.notEqual((await getSecurely(url, trust)).serialNumber, first.serialNumber);
  kept.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  assert.match(await text(kept), /hello$/, 'a connection from before goes on');
  await server.drain();
  assert.equal(renewals.size, 0);
});

test('over TLS, too, a client that connected and asked nothing does not delay the end', {
  timeout: 10_000,
}, async () => {
  const authority = makeAuthority('test', PERIOD);
  const certificate = { identity: issue(authority, [NAME], PERIOD), subscribe: () => () => undefined };
  const server = await serve(() => {}, LOOPBACK, log, certificate);
  const { port } = server.address;
  const client = connectSecurely({ ca: authority.cert, servername: NAME, host: '127.0.0.1', port });
  client.on('error', () => undefined);
  await once(client, 'secureConnect');
  const silent = connect(port, '127.0.0.1');
  silent.on('error', () => undefined);
  await once(silent, 'connect');
  await server.drain();
});
