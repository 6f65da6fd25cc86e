import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { Agent, request } from 'node:https';
import { createConnection } from 'node:net';
import { text } from 'node:stream/consumers';
import { suite, type TestContext, test } from 'node:test';
import { TLSSocket } from 'node:tls';
import { pino } from 'pino';
import * as z from 'zod';
import type { AdmissionRequest, Answer } from '../../webhook/admission-review.ts';
import { renewed, trusted } from '../../webhook/keyring.ts';
import { serveWebhook } from '../../webhook/server.ts';

const NAME = 'weir-webhook.weir.svc';
const REVIEW = JSON.stringify({ request: { uid: '7', resource: { resource: 'pods' }, operation: 'CREATE' } });
const DAY_MS = 86_400_000;

const reviewSchema = z.object({
  response: z.object({
    uid: z.string(),
    allowed: z.boolean(),
    patchType: z.string().optional(),
    patch: z.string().default(''),
    status: z.unknown().optional(),
  }),
});
const responseIn = (body: string) => reviewSchema.parse(JSON.parse(body)).response;

suite('the listener of the webhook', { concurrency: true }, () => {
  test('answers a review under its id, and whatever is none', async (t) => {
    const { post } = await serving(t, async () => ({ patch: [{ op: 'remove', path: '/a' }] }));
    const { status, body } = await post('/pods', REVIEW);
    assert.equal(status, 200);
    const response = responseIn(body);
    assert.deepEqual([response.uid, response.allowed, response.patchType], ['7', true, 'JSONPatch']);
    assert.equal(Buffer.from(response.patch, 'base64').toString(), '[{"op":"remove","path":"/a"}]');
    const { uid, allowed } = responseIn((await post('/pods', 'nonsense')).body);
    assert.deepEqual([uid, allowed], ['', true]);
    assert.equal((await post('/other', REVIEW)).status, 404);
    assert.equal((await post('/pods', REVIEW, { method: 'GET' })).status, 405);
  });

  test('tells why an edit is refused', async (t) => {
    const { post } = await serving(t, async () => ({ refusal: 'line 7 is wrong' }));
    const { uid, allowed, status } = responseIn((await post('/pods', REVIEW)).body);
    assert.deepEqual([uid, allowed], ['7', false]);
    assert.deepEqual(status, { code: 422, reason: 'Invalid', message: 'line 7 is wrong' });
  });

  test('does not take more than an object can be', async (t) => {
    const { post } = await serving(t, async () => ({}));
    await assert.rejects(post('/pods', `${REVIEW}${' '.repeat(9 * 1024 * 1024)}`));
    assert.equal((await post('/pods', REVIEW)).status, 200);
  });

  test('serves with a new certificate from the next connection on, without refusing any', async (t) => {
    const { post, server, keyring } = await serving(t, async () => ({}));
    const kept = new Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => kept.destroy());
    const before = await post('/pods', REVIEW, { agent: kept });
    const next = renewed(keyring, [NAME], new Date());
    server.renew(next.serving);
    assert.equal((await post('/pods', REVIEW, { agent: kept })).certificate, before.certificate);
    assert.notEqual((await post('/pods', REVIEW)).certificate, before.certificate);
  });

  test('answers many at once on one connection of HTTP/2, and ends it without breaking off any', async (t) => {
    const held = Promise.withResolvers<Answer>();
    let count = 0;
    const all = Promise.withResolvers<void>();
    const { server, keyring } = await serving(t, async () => {
      count += 1;
      if (count === 200) all.resolve();
      return held.promise;
    });
    const { session, post } = multiplexed(t, server.address.port, trusted(keyring));
    const answers = Array.from({ length: 200 }, () => post(REVIEW));
    await all.promise;
    const drained = server.drain();
    await once(session, 'goaway');
    held.resolve({});
    for (const said of await Promise.all(answers)) assert.equal(responseIn(said).uid, '7');
    await drained;
  });

  test('does not take more than an object can be by HTTP/2 either, and goes on with the others', async (t) => {
    const { server, keyring } = await serving(t, async () => ({}));
    const { post } = multiplexed(t, server.address.port, trusted(keyring));
    const [large, small] = await Promise.allSettled([
      post(`${REVIEW}${' '.repeat(9 * 1024 * 1024)}`),
      post(REVIEW),
    ]);
    assert.notEqual(large.status === 'fulfilled' && large.value !== '', true);
    assert.equal(small.status, 'fulfilled');
  });

  test('is not disturbed by clients that leave amid a question or an answer, or speak something else', async (t) => {
    const held = Promise.withResolvers<Answer>();
    let count = 0;
    const { server, keyring, post } = await serving(t, async () => {
      count += 1;
      return count > 10 ? {} : held.promise;
    });
    const { port } = server.address;
    const gone: Promise<unknown>[] = [];
    for (let client = 0; client < 10; client++) {
      const { session } = multiplexed(t, port, trusted(keyring));
      const [asking, waiting] = [1, 2].map(() => session.request({ ':method': 'POST', ':path': '/pods' }));
      asking?.on('error', () => undefined).write(REVIEW.slice(0, 9));
      waiting?.on('error', () => undefined).end(REVIEW);
      await once(session, 'remoteSettings');
      gone.push(once(session, 'close'));
      if (client % 2 === 0) session.destroy();
      else for (const stream of [asking, waiting]) stream?.close();
      session.close();
      const plain = createConnection(port, '127.0.0.1').on('error', () => undefined);
      plain.end('GET /pods HTTP/1.1\r\n\r\n');
      gone.push(once(plain, 'close'));
    }
    await Promise.all(gone);
    held.resolve({});
    assert.equal((await post('/pods', REVIEW)).status, 200);
  });

  test('answers what it was asked while it stops, and tells clients to come with new connections', async (t) => {
    const held = Promise.withResolvers<Answer>();
    const asked = Promise.withResolvers<void>();
    let count = 0;
    const { post, server } = await serving(t, async () => {
      count += 1;
      if (count > 1) return {};
      asked.resolve();
      return held.promise;
    });
    const first = post('/pods', REVIEW);
    await asked.promise;
    const drained = server.drain();
    assert.equal((await post('/pods', REVIEW)).connection, 'close');
    held.resolve({});
    assert.equal((await first).status, 200);
    await drained;
    await assert.rejects(post('/pods', REVIEW), /ECONNREFUSED/);
  });
});

/** Asks by HTTP/2 on one connection. */
function multiplexed(t: TestContext, port: number, ca: string) {
  const session = connect(`https://127.0.0.1:${port}`, { ca, servername: NAME });
  t.after(() => session.destroy());
  return {
    session,
    post: async (body: string): Promise<string> => {
      const stream = session.request({ ':method': 'POST', ':path': '/pods' });
      stream.end(body);
      return text(stream);
    },
  };
}

async function serving(t: TestContext, decide: (request: AdmissionRequest) => Promise<Answer>) {
  // Some weeks old, so that a new certificate is due.
  const keyring = renewed(undefined, [NAME], new Date(Date.now() - 21 * DAY_MS));
  const server = await serveWebhook({
    address: { host: '127.0.0.1', port: 0 },
    identity: keyring.serving,
    decisions: new Map([['/pods', decide]]),
    log: pino({ level: 'silent' }),
    farewellMs: 100,
  });
  t.after(() => server.drain());
  const post = async (
    path: string,
    body: string,
    { method = 'POST', agent }: { method?: string; agent?: Agent } = {},
  ) => {
    const { promise, resolve, reject } = Promise.withResolvers<{
      status: number | undefined;
      connection: string | undefined;
      certificate: string;
      body: string;
    }>();
    const { port } = server.address;
    const options = {
      port,
      path,
      method,
      host: '127.0.0.1',
      servername: NAME,
      ca: trusted(keyring),
      agent: agent ?? false,
    };
    const asked = request(options, (response) => {
      const { socket } = response;
      const certificate = fingerprintOf(socket);
      const { connection } = response.headers;
      text(response).then(
        (said) => resolve({ status: response.statusCode, connection, certificate, body: said }),
        reject,
      );
    });
    asked.on('error', reject);
    asked.end(body);
    return promise;
  };
  return { server, keyring, post };
}

function fingerprintOf(socket: object): string {
  return socket instanceof TLSSocket ? socket.getPeerCertificate().fingerprint256 : '';
}
