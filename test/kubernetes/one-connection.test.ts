import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CoreV1Api, createConfiguration, ServerConfiguration, Watch } from '@kubernetes/client-node';
import { OneConnection } from '../../kubernetes/one-connection.ts';
import { until } from '../agent/scripted-replica.ts';
import { makeIdentity } from '../support/certificates.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

const MAPS = '/api/v1/namespaces/weir/configmaps';

test('watches and requests share one connection', async (t) => {
  const { server, core, watch } = await client(t);
  await core.readNamespace({ name: 'weir' });
  for (let count = 1; count <= 3; count++) {
    await watch.watch(
      MAPS,
      {},
      () => undefined,
      () => undefined,
    );
    await until(() => server.watches === count);
  }
  for (let count = 0; count < 10; count++) await core.readNamespace({ name: 'weir' });
  assert.equal(server.connections, 1);
});

test('what comes after a request that nobody waited for any longer has another connection', async (t) => {
  const { server, core, watch } = await client(t, 200);
  await core.readNamespace({ name: 'weir' });
  // As a connection does whose other end is gone, or behind a firewall that forgot it.
  server.freeze();
  const ended = Promise.withResolvers<unknown>();
  await watch.watch(MAPS, {}, () => undefined, ended.resolve);
  assert.match(String(await ended.promise), /timeout/);
  await core.readNamespace({ name: 'weir' });
  assert.equal(server.connections, 2);
});

test('a connection that breaks is made anew, and shared again', async (t) => {
  const { server, core, watch } = await client(t);
  const ended = Promise.withResolvers<unknown>();
  await watch.watch(MAPS, {}, () => undefined, ended.resolve);
  await until(() => server.watches === 1);
  server.break();
  await ended.promise;
  await Promise.all([core.readNamespace({ name: 'weir' }), core.readNamespace({ name: 'weir' })]);
  for (let count = 0; count < 3; count++) await core.readNamespace({ name: 'weir' });
  assert.equal(server.connections, 2);
});

test('a connection that was given up is closed', async (t) => {
  const { server, core, watch } = await client(t, 200, 50);
  const ended = Promise.withResolvers<unknown>();
  await watch.watch(MAPS, {}, () => undefined, ended.resolve);
  assert.match(String(await ended.promise), /timeout/);
  await core.readNamespace({ name: 'weir' });
  assert.equal(server.connections, 2);
  await until(() => server.open === 1);
  await core.readNamespace({ name: 'weir' });
  assert.equal(server.connections, 2);
});

async function client(t: TestContext, quietMs?: number, retireMs?: number) {
  const scratch = await makeScratch();
  t.after(() => removeScratch(scratch));
  const server = await startServer(t, scratch);
  const file = join(scratch, 'kubeconfig.json');
  const cluster = { server: server.url, 'certificate-authority': join(scratch, 'ca.pem') };
  await writeFile(
    file,
    JSON.stringify({
      clusters: [{ name: 'test', cluster }],
      users: [{ name: 'test', user: { token: 'test' } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
      'current-context': 'test',
    }),
  );
  const config = new OneConnection(retireMs);
  config.loadFromFile(file);
  const core = new CoreV1Api(
    createConfiguration({
      baseServer: new ServerConfiguration(server.url, {}),
      authMethods: { default: config },
    }),
  );
  const watch = new Watch(config);
  if (quietMs !== undefined) Object.assign(watch, { requestTimeoutMs: quietMs });
  return { server, core, watch };
}

/** Speaks HTTP/2 as the API server does; a watch is answered with nothing for ever. */
async function startServer(t: TestContext, scratch: string) {
  const { key, cert } = await makeIdentity(scratch, ['IP:127.0.0.1']);
  const sockets = new Set<{ destroy: () => void }>();
  const state = { connections: 0, open: 0, watches: 0 };
  const answer = (request: Http2ServerRequest, response: Http2ServerResponse): void => {
    response.writeHead(200, { 'content-type': 'application/json' });
    if (!request.url.includes('watch=true')) {
      response.end('{}');
      return;
    }
    state.watches += 1;
    response.stream.on('error', () => undefined);
    response.stream.write('\n');
  };
  const server = createSecureServer({ key, cert, allowHTTP1: true }, answer);
  server.on('secureConnection', (socket: Socket) => {
    state.connections += 1;
    state.open += 1;
    socket.once('close', () => (state.open -= 1));
    sockets.add(socket);
  });
  const raw = new Set<{ pause: () => void }>();
  server.on('connection', (socket: { pause: () => void }) => raw.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const end = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  t.after(() => {
    end();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen');
  return Object.assign(state, {
    url: `https://127.0.0.1:${address.port}`,
    break: end,
    freeze: (): void => {
      for (const socket of raw) socket.pause();
    },
  });
}
