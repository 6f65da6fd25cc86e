import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { suite, type TestContext, test } from 'node:test';
import { createMetrics } from '../../process/metrics.ts';
import { type Found, ManifestProbe } from '../../webhook/manifest-probe.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { portOf, until } from '../agent/scripted-replica.ts';
import { makeChain } from '../support/certificates.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

const place = (origin: string, reference = '1') => ({
  origin,
  repository: 'docker.io/library/nginx',
  reference,
});

suite('the question whether a mirror has a manifest', { concurrency: true }, () => {
  const answers: readonly (readonly [status: number, found: Found])[] = [
    [200, 'there'],
    [404, 'absent'],
    [401, 'refused'],
    [403, 'refused'],
    [307, 'down'],
    [429, 'down'],
    [502, 'down'],
  ];
  for (const [status, found] of answers)
    test(`is answered with ${status}: ${found}`, async (t) => {
      const { probe, origin, seen } = await probing(t, (_, response) => response.writeHead(status).end());
      assert.equal(await probe.look(place(origin)), found);
      const [asked] = seen;
      assert.equal(`${asked?.method} ${asked?.url}`, 'HEAD /v2/docker.io/library/nginx/manifests/1');
      assert.match(asked?.headers.accept ?? '', /oci\.image\.index.*docker\.distribution\.manifest\.v2/);
    });

  test('is put with the token that the mirror gives to everybody', async (t) => {
    const asked: string[] = [];
    const { probe, origin } = await probing(t, (request, response) => {
      const { authorization, host } = request.headers;
      asked.push(`${request.method} ${request.url} ${authorization ?? ''}`.trim());
      if (request.url?.startsWith('/token') === true) response.end('{"token":"everybody"}');
      else if (authorization === 'Bearer everybody') response.writeHead(200).end();
      else {
        const challenge = `Bearer realm="http://${host}/token?a=b",service="mirror",scope="x"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    assert.equal(await probe.look(place(origin)), 'there');
    const path = '/v2/docker.io/library/nginx/manifests/1';
    assert.deepEqual(asked, [
      `HEAD ${path}`,
      'GET /token?a=b&service=mirror&scope=repository%3Adocker.io%2Flibrary%2Fnginx%3Apull',
      `HEAD ${path} Bearer everybody`,
    ]);
  });

  const unfit: Readonly<Record<string, (host: string) => string>> = {
    'of a password': () => 'Basic realm="mirror"',
    'that cannot be read': () => 'Bearer realm="nowhere"',
    'of a service of the cloud': () => 'Bearer realm="https://169.254.169.254/token"',
    'that is refused itself': (host) => `Bearer realm="http://${host}/v2/"`,
  };
  for (const [what, challenge] of Object.entries(unfit))
    test(`is not put again after a challenge ${what}`, async (t) => {
      const { probe, origin } = await probing(t, ({ headers }, response) =>
        response.writeHead(401, { 'www-authenticate': challenge(headers.host ?? '') }).end(),
      );
      assert.equal(await probe.look(place(origin)), 'refused');
    });

  test('gets no token from elsewhere without TLS', async (t) => {
    const elsewhere = await probing(t, (_, response) => response.end('{"token":"everybody"}'));
    const challenge = `Bearer realm="${elsewhere.origin}/token"`;
    const { probe, origin } = await probing(t, ({ headers }, response) =>
      response
        .writeHead(headers.authorization === undefined ? 401 : 200, { 'www-authenticate': challenge })
        .end(),
    );
    assert.equal(await probe.look(place(origin)), 'refused');
    assert.deepEqual(elsewhere.seen, []);
  });

  test('is put once, however many want to know, and not again for a while', async (t) => {
    const held = Promise.withResolvers<void>();
    const { probe, origin, seen } = await probing(t, async (_, response) => {
      await held.promise;
      response.writeHead(200).end();
    });
    const looks = Array.from({ length: 50 }, () => probe.look(place(origin)));
    probe.warm(place(origin));
    await until(() => seen.length > 0);
    held.resolve();
    assert.deepEqual(new Set(await Promise.all(looks)), new Set(['there']));
    assert.equal(await probe.look(place(origin)), 'there');
    assert.equal(seen.length, 1);
    await probe.look(place(origin, '2'));
    assert.equal(seen.length, 2);
  });

  test('is not waited for longer than the budget, and its answer is known when it comes', async (t) => {
    const held = Promise.withResolvers<void>();
    const { probe, origin, seen } = await probing(
      t,
      async (_, response) => {
        await held.promise;
        response.writeHead(200).end();
      },
      { budgetMs: 100 },
    );
    assert.equal(await probe.look(place(origin)), 'slow');
    held.resolve();
    await until(async () => (await probe.look(place(origin))) === 'there');
    assert.equal(seen.length, 1);
  });

  test('is answered by a mirror that is not there', async (t) => {
    const { probe, origin, close } = await probing(t, () => undefined);
    await close();
    assert.equal(await probe.look(place(origin)), 'down');
  });

  test('is put anew about everything once the mirror is found to be gone', async (t) => {
    const { probe, origin, close } = await probing(t, (_, response) => response.writeHead(200).end());
    assert.equal(await probe.look(place(origin)), 'there');
    await close();
    assert.equal(await probe.look(place(origin)), 'there', 'which is not found out by itself');
    assert.equal(await probe.look(place(origin, '2')), 'down');
    assert.equal(await probe.look(place(origin)), 'down');
  });

  test('is put anew about nothing of another mirror, which is there still', async (t) => {
    const other = await probing(t, (_, response) => response.writeHead(200).end());
    const { probe, origin, close } = await probing(t, (_, response) => response.writeHead(200).end());
    assert.equal(await probe.look(place(other.origin)), 'there');
    assert.equal(await probe.look(place(origin)), 'there');
    await close();
    assert.equal(await probe.look(place(origin, '2')), 'down');
    assert.equal(await probe.look(place(other.origin)), 'there');
    assert.equal(other.seen.length, 1);
    assert.equal(await probe.look(place(origin)), 'down', 'while what was known of it is forgotten');
  });

  test('is put once to a mirror that hangs, whatever connections were kept', async (t) => {
    let isHanging = false;
    const { probe, origin, seen } = await probing(
      t,
      (_, response) => {
        if (!isHanging) response.writeHead(200, { 'content-length': 7 }).end();
      },
      { answerMs: 2_000 },
    );
    const tags = Array.from({ length: 8 }, (_, at) => String(at));
    assert.deepEqual(
      new Set(await Promise.all(tags.map((tag) => probe.look(place(origin, tag))))),
      new Set(['there']),
    );
    isHanging = true;
    assert.equal(await probe.look(place(origin, 'new')), 'down');
    assert.equal(seen.length, tags.length + 1);
  });

  test('is put anew when the connection that was kept is closed just then', async (t) => {
    const used = new WeakSet<object>();
    const closed = new Set<string>();
    const { probe, origin } = await probing(t, (request, response) => {
      if (used.has(request.socket)) {
        closed.add(request.url ?? '');
        request.socket.destroy();
      } else response.writeHead(200, { 'content-length': 7 }).end();
      used.add(request.socket);
    });
    for (let tag = 0; closed.size === 0 && tag < 100; tag++)
      assert.equal(await probe.look(place(origin, String(tag))), 'there');
    assert.equal(closed.size, 1);
  });

  test('is put over TLS to one whose authority is known, whatever that is at the time', async (t) => {
    const period = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
    const authority = makeAuthority('test', period);
    const server = createSecureServer(issue(authority, ['localhost'], period), (_, response) =>
      response.writeHead(200).end(),
    ).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const origin = `https://localhost:${portOf(server)}`;
    let ca: string | undefined = makeAuthority('another', period).cert;
    const authorities = (of: string): string | undefined => (of === origin ? ca : undefined);
    const metrics = createMetrics();
    const probe = new ManifestProbe({ product: 'test', metrics, budgetMs: 10_000, authorities });
    t.after(() => {
      probe.close();
      server.close();
      server.closeAllConnections();
    });
    assert.equal(await probe.look(place(origin)), 'down');
    ca = authority.cert;
    assert.equal(await probe.look(place(origin, '2')), 'there');
    ca = undefined;
    assert.equal(await probe.look(place(origin, '3')), 'down', 'not of those that everybody trusts');
  });

  test('is put over TLS to one whose authority is itself signed by another', async (t) => {
    const directory = await makeScratch();
    t.after(() => removeScratch(directory));
    const { issuer, ...identity } = await makeChain(directory, ['DNS:localhost']);
    const server = createSecureServer(identity, (_, response) => response.writeHead(200).end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const metrics = createMetrics();
    const probe = new ManifestProbe({
      product: 'test',
      metrics,
      budgetMs: 10_000,
      authorities: () => issuer,
    });
    t.after(() => {
      probe.close();
      server.close();
      server.closeAllConnections();
    });
    assert.equal(await probe.look(place(`https://localhost:${portOf(server)}`)), 'there');
  });
});

async function probing(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => unknown,
  { budgetMs = 10_000, ...times }: { readonly budgetMs?: number; readonly answerMs?: number } = {},
) {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    void answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen');
  const probe = new ManifestProbe({ product: 'test', metrics: createMetrics(), budgetMs, ...times });
  const close = async (): Promise<void> => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  t.after(async () => {
    probe.close();
    await close();
  });
  return { probe, seen, close, origin: `http://127.0.0.1:${address.port}` };
}
