import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { pino } from 'pino';
import { type Proof, type ProofOptions, prove } from '../../agent/proof.ts';
import { causeOf } from '../../agent/proof-cause.ts';
import { type Canary, canaryOf, parseCanary } from '../../oci/canary.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { canaryBehind, listen, type ScriptedCri, startCri } from './scripted-cri.ts';

const log = pino({ level: 'silent' });
const certsDir = '/etc/containerd/certs.d';
const UNREAD =
  'failed to pull and unpack image "canary.weir.internal/amd64/00:proof": failed to resolve reference "canary.weir.internal/amd64/00:proof": failed to do request: Head "https://canary.weir.internal/v2/amd64/00/manifests/proof": dial tcp: lookup canary.weir.internal on 10.0.0.10:53: no such host';
const NO_HOST = 'dial tcp: lookup canary.weir.internal on 10.0.0.10:53: no such host';

suite('why a runtime did not get the canary', () => {
  const mirror = 'http://127.0.0.1:5700';
  const table: readonly (readonly [
    error: string,
    configPath: string | undefined,
    isUnread: boolean,
    reason: string,
  ])[] = [
    [
      UNREAD,
      '',
      true,
      `the runtime does not read hosts.toml: its config_path is empty; set it to ${certsDir} and restart it (${NO_HOST})`,
    ],
    [
      UNREAD,
      undefined,
      true,
      `the runtime does not read hosts.toml: is its config_path ${certsDir}, and not a list of directories (containerd 2.2 and newer)? (${NO_HOST})`,
    ],
    [
      UNREAD,
      '/etc/other:/etc/more',
      true,
      `the runtime does not read hosts.toml: its config_path is /etc/other:/etc/more, and weir's files are in ${certsDir} (${NO_HOST})`,
    ],
    [
      UNREAD,
      `/etc/other:${certsDir}`,
      true,
      `the runtime does not read hosts.toml: its config_path is /etc/other:${certsDir}; its log says what is wrong with ${certsDir}/canary.weir.internal/hosts.toml (${NO_HOST})`,
    ],
    [
      head(
        'https://canary.weir.internal',
        'proxyconnect tcp: dial tcp 10.0.0.9:3128: connect: connection refused',
      ),
      '',
      true,
      `the runtime does not read hosts.toml: its config_path is empty; set it to ${certsDir} and restart it (proxyconnect tcp: dial tcp 10.0.0.9:3128: connect: connection refused)`,
    ],
    [
      head(mirror, 'dial tcp 127.0.0.1:5700: connect: connection refused'),
      certsDir,
      false,
      'the runtime cannot use the mirror: dial tcp 127.0.0.1:5700: connect: connection refused',
    ],
    [
      head(mirror, 'proxyconnect tcp: dial tcp: lookup proxy.corp: no such host'),
      certsDir,
      false,
      'the runtime asks its HTTP proxy for the mirror: add 127.0.0.1 to its NO_PROXY (proxyconnect tcp: dial tcp: lookup proxy.corp: no such host)',
    ],
    [
      head(mirror, 'tls: failed to verify certificate: x509: certificate signed by unknown authority'),
      certsDir,
      false,
      "the runtime does not trust the mirror's certificate (tls: failed to verify certificate: x509: certificate signed by unknown authority)",
    ],
    [
      `failed to resolve image: unexpected status from HEAD request to ${mirror}/v2/amd64/00/manifests/proof?ns=canary.weir.internal: 503 Service Unavailable`,
      certsDir,
      false,
      `the runtime cannot use the mirror: unexpected status from HEAD request to ${mirror}/v2/amd64/00/manifests/proof?ns=canary.weir.internal: 503 Service Unavailable`,
    ],
    [
      'it did not end within 10 s',
      '',
      true,
      `the runtime does not read hosts.toml: its config_path is empty; set it to ${certsDir} and restart it (it did not end within 10 s)`,
    ],
    [
      `image verifier says no to canary.weir.internal/amd64/${'0'.repeat(32)}:proof\nand more`,
      undefined,
      false,
      'the runtime did not pull through the mirror: image verifier says no to canary.weir.internal/amd64/…:proof and more',
    ],
  ];
  for (const [error, configPath, isUnread, reason] of table)
    test(reason, () =>
      assert.deepEqual(causeOf(error, { runtime: 'containerd', mirror, certsDir, configPath }), {
        isUnread,
        reason,
      }),
    );

  test('is no question of directories to another runtime', () => {
    const error =
      'pinging container registry canary.weir.internal: Get "https://canary.weir.internal/v2/": EOF';
    assert.deepEqual(causeOf(error, { runtime: 'cri-o', mirror, certsDir, configPath: undefined }), {
      isUnread: true,
      reason:
        'CRI-O does not go by the drop-in of weir: it reads registries.conf.d at a SIGHUP (the agent needs hostPID for that), by itself with auto_reload_registries, or at its next start (pinging container registry canary.weir.internal: EOF)',
    });
  });
});

suite('a proof', () => {
  let scratch: string;
  let mirror: Mirror;
  let cri: ScriptedCri;
  let options: ProofOptions;

  beforeEach(async () => {
    scratch = await makeScratch();
    mirror = await startMirror('upstreams: { docker.io: {} }');
    cri = await startCri(join(scratch, 'cri.sock'));
    cri.pull = obey;
    options = { socket: cri.socket, mirror: mirror.url, certsDir, log, timeout: 10_000 };
  });
  afterEach(async () => {
    cri.close();
    await mirror.close();
    await removeScratch(scratch);
  });

  /** As a runtime does that reads our hosts.toml. */
  async function obey(reference: string): Promise<string> {
    const canary = canaryBehind(reference);
    const answer = await fetch(
      `${mirror.url}/v2/${canary.repository}/manifests/proof?ns=canary.weir.internal`,
    );
    if (!answer.ok) throw new Error(`unexpected status from HEAD request to ${answer.url}: ${answer.status}`);
    return canary.config.digest;
  }

  test('is given by a runtime that has the image from the mirror, and nothing of it stays', async () => {
    assert.deepEqual(await prove(options), {
      kind: 'proven',
      runtime: { name: 'containerd', version: '1.2.3' },
    });
    assert.deepEqual([...cri.images], []);
    await prove(options);
    assert.equal(new Set(pulls()).size, 2, 'each proof has an image of its own');
  });

  test('is given as well by runtimes that name the image in other ways', async () => {
    for (const name of [
      ({ config }: Canary) => config.digest.slice('sha256:'.length),
      ({ repository, manifest }: Canary) => `canary.weir.internal/${repository}@${manifest.digest}`,
    ]) {
      cri.pull = (reference) => Promise.resolve(name(canaryBehind(reference)));
      assert.equal((await prove(options)).kind, 'proven');
    }
  });

  test('asks for an image of the architecture', async () => {
    await prove({ ...options, architecture: 'riscv64' });
    assert.match(pulls()[0] ?? '', /^canary\.weir\.internal\/riscv64\/[0-9a-f]{32}:proof$/);
  });

  test('is not given by another image than the mirror has', async () => {
    cri.pull = () => Promise.resolve(`sha256:${'0'.repeat(64)}`);
    const proof = await prove(options);
    assert.equal(proof.kind, 'bypassed');
    assert.match(reasonOf(proof), /^somebody else answered for canary\.weir\.internal/);
    assert.deepEqual([...cri.images], []);
  });

  test('says bypassed of a runtime that goes to the host itself, also while the mirror is away', async () => {
    cri.pull = () => Promise.reject(new Error(UNREAD));
    cri.configPath = '';
    for (const url of [mirror.url, 'http://127.0.0.1:9']) {
      cri.calls.length = 0;
      const proof = await prove({ ...options, mirror: url });
      assert.equal(proof.kind, 'bypassed');
      assert.match(reasonOf(proof), /its config_path is empty; set it to \/etc\/containerd\/certs\.d/);
      assert.equal(pulls().length, 1, 'once is enough');
    }
  });

  test('is tried once more when the mirror is well after all', async () => {
    cri.pull = (reference) => {
      cri.pull = obey;
      return Promise.reject(new Error(`${mirror.url}/v2/x: 503, ${reference}`));
    };
    assert.equal((await prove(options)).kind, 'proven');
    cri.pull = () => Promise.reject(new Error('no space left on device'));
    assert.deepEqual(await prove(options), {
      kind: 'bypassed',
      reason: 'the runtime did not pull through the mirror: no space left on device',
    });
    assert.equal(pulls().length, 4);
  });

  test('says unproven while the mirror does not answer', async (t) => {
    cri.pull = () => Promise.reject(new Error('unexpected status: 503'));
    const mirrors: readonly (readonly [RequestListener, string])[] = [
      [(_, response) => void response.writeHead(503).end(), 'URL answers 503'],
      [(_, response) => void response.end('{}'), 'URL is not weir, or of another version'],
      [(request) => void request.socket.destroy(), 'URL: socket hang up'],
      [hangsAtBlobs, 'URL says nothing within 5 s'],
    ];
    for (const [listener, problem] of mirrors) {
      const url = await listen(t, createServer(listener));
      assert.deepEqual(await prove({ ...options, mirror: url }), {
        kind: 'unproven',
        reason: `the mirror does not answer: ${problem.replace('URL', url)}`,
      });
    }
    const proof = await prove({ ...options, mirror: 'http://127.0.0.1:9' });
    assert.match(reasonOf(proof), /^the mirror does not answer: http:\/\/127\.0\.0\.1:9: .*ECONNREFUSED/);
  });

  test('gives up on a runtime that does not end the pull', async () => {
    cri.pull = () => new Promise(() => undefined);
    assert.deepEqual(await prove({ ...options, timeout: 100 }), {
      kind: 'bypassed',
      reason: 'the runtime did not pull through the mirror: it did not end within 0.1 s',
    });
  });

  test('removes what a killed agent left, and no image that has another name', async () => {
    const [left, other, named, foreign] = ['1', '2', '3', '4'].map((digit) => `sha256:${digit.repeat(64)}`);
    const canary = `canary.weir.internal/amd64/${'1'.repeat(32)}`;
    cri.images.set('left', { id: left ?? '', references: [`${canary}:proof`, `${canary}@${left}`] });
    cri.images.set('other', { id: other ?? '', references: ['docker.io/library/nginx:1'] });
    cri.images.set('named', { id: named ?? '', references: [`${canary}:proof2`, 'mine:1'] });
    cri.images.set('foreign', { id: foreign ?? '', references: [] });
    assert.equal((await prove(options)).kind, 'proven');
    assert.deepEqual([...cri.images.keys()], ['other', 'named', 'foreign']);
  });

  test('that is not wanted any more leaves nothing', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const stop = new AbortController();
    cri.pull = async (reference) => {
      resolve();
      await once(stop.signal, 'abort');
      return canaryBehind(reference).config.digest;
    };
    const proof = prove({ ...options, signal: stop.signal });
    await promise;
    stop.abort(new Error('stopped'));
    await assert.rejects(proof, /^Error: stopped$/);
    assert.match(cri.calls.at(-1) ?? '', /^RemoveImage canary/);
  });

  const pulls = () => cri.calls.flatMap((call) => /^PullImage (.*)$/.exec(call)?.[1] ?? []);
});

/** What containerd 2.x says of a request that failed. */
function head(url: string, rest: string): string {
  return `failed to pull and unpack image "canary.weir.internal/amd64/00:proof": failed to resolve image: failed to do request: Head "${url}/v2/amd64/00/manifests/proof?ns=canary.weir.internal": ${rest}`;
}

/** Only the manifest is answered. */
function hangsAtBlobs({ url = '' }: IncomingMessage, response: ServerResponse): void {
  const found = parseCanary(/^\/v2\/(\w+\/\w+)\/manifests\//.exec(url)?.[1] ?? '');
  if (found !== undefined) response.end(canaryOf(found).manifest.bytes);
}

function reasonOf(proof: Proof): string {
  return 'reason' in proof ? proof.reason : '';
}
