import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { hexOf } from '../../oci/digest.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { FragileStore } from '../support/fragile-store.ts';
import { contentOf, type Image, INDEX_TYPE, makeImage } from '../support/image.ts';
import { type Mirror, startMirror, temporaryDirectory } from '../support/mirror.ts';
import { sendJson, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
const SIGNATURE = 'application/vnd.dev.cosign.artifact.sig.v1+json';
const SBOM = 'application/spdx+json';

/** A descriptor with what the specification names, and with what it does not. */
function referrer(artifactType: string, name = artifactType) {
  const { digest, bytes } = contentOf('', name);
  const annotations = { 'org.example.name': name };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  return { mediaType, digest, size: bytes.length, artifactType, annotations, 'x-unknown': { kept: [1, 2] } };
}

function listOf(...manifests: readonly unknown[]) {
  return { schemaVersion: 2, mediaType: INDEX_TYPE, manifests };
}

function sendList(response: ServerResponse, manifests: readonly unknown[] | null, link?: string): void {
  if (link !== undefined) response.setHeader('link', link);
  sendJson(response, 200, { schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
}

suite('what refers to a manifest', () => {
  let image: Image;
  let path: string;
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  const configure = (tags: string, more = '') =>
    `upstreams: { docker.io: { endpoint: "${upstream.url}", tags: ${tags} ${more} } }`;
  const ALWAYS = '{ ttl: 0s, staleWhileRevalidate: 0s }';

  beforeEach(async () => {
    image = await makeImage([{ hello: 'world' }]);
    path = `/v2/${REPOSITORY}/referrers/${image.manifest.digest}`;
    upstream = await UpstreamRegistry.start();
    mirror = await startMirror(configure('{}'));
  });
  afterEach(async () => {
    await mirror.close();
    await upstream.stop();
  });

  /** The upstream's referrers API, answering every request for this list so. */
  const lists = (answer: (response: ServerResponse, query: URLSearchParams) => void): void => {
    upstream.fault = (request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? '/', upstream.url);
      if (pathname !== path) return false;
      answer(response, searchParams);
      return true;
    };
  };
  const ask = async (query = '', from = mirror) => {
    const answer = await fetch(`${from.url}${path}${query}`);
    const body: unknown = await answer.json();
    return { answer, body };
  };
  const asked = () => upstream.seen.filter((seen) => seen.path.includes('/referrers/')).length;

  test('comes through as the upstream lists it, and is asked for once', async () => {
    lists((response) => sendList(response, [referrer(SIGNATURE), referrer(SBOM)]));
    for (let round = 0; round < 3; round++) {
      const { answer, body } = await ask();
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), INDEX_TYPE);
      assert.equal(answer.headers.get('oci-filters-applied'), null);
      assert.equal(answer.headers.get('cache-status'), round === 0 ? 'weir; fwd=miss; stored' : 'weir; hit');
      assert.deepEqual(body, listOf(referrer(SIGNATURE), referrer(SBOM)));
    }
    assert.deepEqual(
      upstream.seen.map((seen) => seen.path),
      [path],
    );
  });

  test('is filtered here, from the one whole list', async () => {
    lists((response) => sendList(response, [referrer(SIGNATURE), referrer(SBOM), referrer(SBOM, 'second')]));
    for (const [type, expected] of [
      [SBOM, [referrer(SBOM), referrer(SBOM, 'second')]],
      [SIGNATURE, [referrer(SIGNATURE)]],
      ['application/nothing', []],
    ] as const) {
      const { answer, body } = await ask(`?artifactType=${encodeURIComponent(type)}`);
      assert.equal(answer.headers.get('oci-filters-applied'), 'artifactType');
      assert.deepEqual(body, listOf(...expected));
    }
    assert.equal(asked(), 1);
  });

  test('is asked for with ?ns= and prefixes as every pull, with the token that the upstream wants', async () => {
    upstream.tokens = true;
    mirror.configure(`upstreams: { quay.io: { endpoint: "${upstream.url}" } }`);
    const { digest } = image.manifest;
    const wanted: string[] = [];
    upstream.fault = (request, response) => {
      if (request.headers.authorization === undefined || request.url?.includes('/referrers/') !== true)
        return false;
      wanted.push(request.url);
      sendList(response, null);
      return true;
    };
    for (const asking of [`org/app/referrers/${digest}?ns=quay.io`, `quay/org/other/referrers/${digest}`]) {
      const answer = await fetch(`${mirror.url}/v2/${asking}`);
      assert.deepEqual(await answer.json(), listOf());
    }
    assert.deepEqual(wanted, [`/v2/org/app/referrers/${digest}`, `/v2/org/other/referrers/${digest}`]);
  });

  test('is read to its last page, whichever way the pages are linked', async () => {
    const pages = [
      `<${path}?page=1>; rel="next"`,
      '<?page=2>; title="more"; rel=next',
      `<${upstream.url}${path.replace('sha256:', 'sha256%3A')}?page=3>; rel="next", <?page=0>; rel="first"`,
      undefined,
    ];
    lists((response, query) => {
      const page = Number(query.get('page') ?? 0);
      sendList(response, [referrer(SBOM, String(page))], pages[page]);
    });
    const { body } = await ask();
    assert.deepEqual(body, listOf(...['0', '1', '2', '3'].map((name) => referrer(SBOM, name))));
    assert.equal(asked(), 4);
  });

  test('is refused when it goes on elsewhere, without end, or beyond all measure', async () => {
    const elsewhere = await UpstreamRegistry.start();
    const large = Array.from({ length: 200 }, () => referrer(SBOM, 'x'.repeat(10_000)));
    const table: Readonly<Record<string, [manifests: readonly unknown[], link: string]>> = {
      'another origin': [[], `<${elsewhere.url}${path}?page=2>; rel="next"`],
      'another origin without a scheme': [[], `<//${elsewhere.host}${path}?page=2>; rel="next"`],
      'another repository': [[], `</v2/library/secret/referrers/${image.manifest.digest}>; rel="next"`],
      'without end': [[], `<${path}?again=1>; rel="next"`],
      'beyond all measure': [large, `<${path}?again=1>; rel="next"`],
    };
    for (const [name, [manifests, link]] of Object.entries(table)) {
      lists((response) => sendList(response, manifests, link));
      const { answer } = await ask();
      assert.equal(answer.status, 503, name);
      assert.ok(asked() <= 64, name);
      upstream.seen.length = 0;
    }
    assert.equal(elsewhere.seen.length, 0);
    await elsewhere.stop();
  });

  test('is refused when it is no list', async () => {
    for (const body of [
      {},
      [],
      { schemaVersion: 2, manifests: [{ digest: 'x' }] },
      { schemaVersion: 1, manifests: [] },
    ]) {
      lists((response) => sendJson(response, 200, body));
      assert.equal((await ask()).answer.status, 503, JSON.stringify(body));
    }
    lists((response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Log in</p>'));
    assert.equal((await ask()).answer.status, 503);
  });

  test('is not there at an upstream without the API, which is asked once, and clients use the tag instead', async () => {
    const fallback = image.manifest.digest.replace(':', '-');
    const signatures = contentOf(INDEX_TYPE, JSON.stringify(listOf(referrer(SIGNATURE))));
    upstream.pushManifest(REPOSITORY, fallback, signatures);
    for (let round = 0; round < 3; round++) {
      const { answer } = await ask();
      assert.equal(answer.status, 404);
      const tag = await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/${fallback}`);
      assert.equal(tag.headers.get('content-type'), INDEX_TYPE);
      assert.deepEqual(await tag.json(), listOf(referrer(SIGNATURE)));
    }
    assert.equal(asked(), 1);
  });

  for (const api of [true, false])
    test(`is answered with the upstream away, also after a restart, where it ${api ? 'lists' : 'does not list'} them`, async () => {
      const directory = await temporaryDirectory();
      const fallback = image.manifest.digest.replace(':', '-');
      upstream.pushManifest(REPOSITORY, fallback, contentOf(INDEX_TYPE, JSON.stringify(listOf())));
      if (api) lists((response) => sendList(response, [referrer(SIGNATURE)]));
      const first = await startMirror(configure(ALWAYS), { directory });
      assert.equal((await ask('', first)).answer.status, api ? 200 : 404);
      await (await fetch(`${first.url}/v2/${REPOSITORY}/manifests/${fallback}`)).arrayBuffer();
      await first.close();
      await upstream.stop();
      const second = await startMirror(configure(ALWAYS), { directory });
      try {
        const { answer, body } = await ask('', second);
        assert.equal(answer.status, api ? 200 : 404);
        if (api) {
          assert.deepEqual(body, listOf(referrer(SIGNATURE)));
          assert.match(answer.headers.get('cache-status') ?? '', /^weir; hit; ttl=-\d+; detail=stale$/);
        }
        assert.equal((await fetch(`${second.url}/v2/${REPOSITORY}/manifests/${fallback}`)).status, 200);
      } finally {
        await second.close();
        await upstream.resume();
        await rm(directory, { recursive: true, force: true });
      }
    });

  for (const status of [400, 404, 405, 406, 501])
    test(`is not there at an upstream that answers ${status} for want of the API, as clients are told by 404`, async () => {
      lists((response) => sendJson(response, status, {}));
      assert.equal((await ask()).answer.status, 404);
    });

  for (const status of [401, 403])
    test(`is not forgotten by a ${status}, not even after a restart`, async () => {
      const directory = await temporaryDirectory();
      const restart = async () => {
        await mirror.close();
        mirror = await startMirror(configure(ALWAYS), { directory });
      };
      await restart();
      lists((response) => sendList(response, [referrer(SIGNATURE)]));
      await ask();
      lists((response) => sendJson(response, status, {}));
      assert.equal((await ask()).answer.status, 404);
      lists((response) => sendJson(response, 500, {}));
      assert.equal((await ask()).answer.status, 200);
      await restart();
      const { answer, body } = await ask();
      assert.match(answer.headers.get('cache-status') ?? '', /detail=stale/);
      assert.deepEqual(body, listOf(referrer(SIGNATURE)));
      await rm(directory, { recursive: true, force: true });
    });

  test('is stale when the upstream limits requests, which is then left alone, and unavailable when never listed', async () => {
    mirror.configure(configure(ALWAYS));
    lists((response) => sendList(response, [referrer(SIGNATURE)]));
    await ask();
    lists((response) => sendJson(response, 429, {}));
    for (let round = 0; round < 3; round++) {
      const { answer, body } = await ask();
      assert.match(answer.headers.get('cache-status') ?? '', /detail=stale/);
      assert.deepEqual(body, listOf(referrer(SIGNATURE)));
    }
    assert.equal(asked(), 2);
    upstream.fault = (_, response) => {
      sendJson(response, 429, {});
      return true;
    };
    const other = `${mirror.url}/v2/library/other/referrers/${image.manifest.digest}`;
    assert.equal((await fetch(other)).status, 503);
  });

  test('is waited for no longer than the budget when it is known', async () => {
    mirror.configure(configure('{ ttl: 0s, staleWhileRevalidate: 0s, budget: 50ms }'));
    lists((response) => sendList(response, [referrer(SIGNATURE)]));
    await ask();
    const held = Promise.withResolvers<ServerResponse>();
    lists((response) => held.resolve(response));
    const { answer, body } = await ask();
    assert.match(answer.headers.get('cache-status') ?? '', /detail=stale/);
    assert.deepEqual(body, listOf(referrer(SIGNATURE)));
    sendList(await held.promise, []);
  });

  test('is seen anew once its time is over, with what was added and what was removed', async () => {
    mirror.configure(configure(ALWAYS));
    for (const names of [['one'], ['one', 'two'], []]) {
      lists((response) =>
        sendList(
          response,
          names.map((name) => referrer(SBOM, name)),
        ),
      );
      assert.deepEqual((await ask()).body, listOf(...names.map((name) => referrer(SBOM, name))));
    }
  });

  test('is asked for once by many clients at the same time', async () => {
    const goOn = Promise.withResolvers<void>();
    lists((response) => void goOn.promise.then(() => sendList(response, [referrer(SBOM)])));
    const clients = Array.from({ length: 20 }, () => ask());
    goOn.resolve();
    for (const { body } of await Promise.all(clients)) assert.deepEqual(body, listOf(referrer(SBOM)));
    assert.equal(asked(), 1);
  });

  test('of one repository is nothing to another', async () => {
    lists((response) => sendList(response, [referrer(SIGNATURE)]));
    await ask();
    const answer = await fetch(`${mirror.url}/v2/library/other/referrers/${image.manifest.digest}`);
    assert.equal(answer.status, 404);
    const list = contentOf(INDEX_TYPE, JSON.stringify(listOf(referrer(SIGNATURE))));
    // Though the list is kept as a blob, it is none that could be pulled.
    assert.equal((await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${list.digest}`)).status, 404);
    assert.equal((await fetch(`${mirror.url}/v2/${REPOSITORY}/manifests/${list.digest}`)).status, 404);
  });

  suite('and a store that is slow, fails or is damaged:', () => {
    const KEY = { host: 'docker.io', repository: REPOSITORY };
    let directory: string;
    let real: FilesystemStore;
    let store: FragileStore;
    let replica: Mirror;

    /** A registry that has nothing in memory, over the one directory. */
    const startReplica = async (): Promise<void> => {
      store = new FragileStore(real);
      // S3's does not send again what is there.
      store.put = async (digest, bytes) => {
        if ((await store.stat(digest)) === undefined) await real.put(digest, bytes);
      };
      const settings = { store, spoolDirectory: real.temporaryDirectory, directory };
      replica = await startMirror(configure(ALWAYS), settings);
    };
    beforeEach(async () => {
      directory = await temporaryDirectory();
      real = await FilesystemStore.open(join(directory, 'store'));
      await startReplica();
      lists((response) => sendList(response, [referrer(SIGNATURE)]));
    });
    afterEach(async () => {
      await replica.close();
      await rm(directory, { recursive: true, force: true });
    });

    test('what somebody else was told while the store was being searched is taken, and not asked for again', async () => {
      const { promise: found, resolve } = Promise.withResolvers<void>();
      replica.configure(configure('{ ttl: 1h }'));
      store.gates = new Map([['referrers', found]]);
      store.broken = new Set(['putReferrers']);
      const slow = ask('', replica);
      await until(() => store.asked.has('referrers'));
      store.gates = new Map();
      await ask('', replica);
      resolve();
      const { answer, body } = await slow;
      assert.equal(answer.headers.get('cache-status'), 'weir; hit');
      assert.deepEqual(body, listOf(referrer(SIGNATURE)));
      assert.equal(asked(), 1);
    });

    test('the answer does not wait for the store, which is offered again what it does not take', async () => {
      const { promise: isAnswered, resolve } = Promise.withResolvers<void>();
      let tries = 0;
      store.putReferrers = async (...record) => {
        await isAnswered;
        tries += 1;
        if (tries === 1) throw new Error('the store is away');
        await real.putReferrers(...record);
      };
      try {
        const answer = await fetch(`${replica.url}${path}`, { signal: AbortSignal.timeout(10_000) });
        assert.deepEqual(await answer.json(), listOf(referrer(SIGNATURE)));
      } finally {
        resolve();
      }
      await until(async () => (await real.referrers(KEY, image.manifest.digest)) !== undefined);
    });

    test('a list that is damaged there is asked for again, and kept in its place', async () => {
      await ask('', replica);
      await replica.close();
      const { list = assert.fail() } = (await real.referrers(KEY, image.manifest.digest)) ?? {};
      const hex = hexOf(list);
      await writeFile(join(directory, 'store', 'blobs', 'sha256', hex.slice(0, 2), hex), 'damaged');
      await startReplica();
      assert.deepEqual((await ask('', replica)).body, listOf(referrer(SIGNATURE)));
      assert.equal(asked(), 2);
      await replica.close();
      await startReplica();
      lists((response) => sendJson(response, 500, {}));
      const { answer, body } = await ask('', replica);
      assert.match(answer.headers.get('cache-status') ?? '', /detail=stale/);
      assert.deepEqual(body, listOf(referrer(SIGNATURE)));
    });
  });

  test('answers HEAD as GET, without the list', async () => {
    lists((response) => sendList(response, [referrer(SIGNATURE)]));
    const head = await fetch(`${mirror.url}${path}`, { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get('content-type'), INDEX_TYPE);
    assert.ok(Number(head.headers.get('content-length')) > 100);
  });
});

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const patience = AbortSignal.timeout(20_000);
  while (!(await condition())) {
    patience.throwIfAborted();
    await setTimeout(10);
  }
}
