import assert from 'node:assert/strict';
import { get, type IncomingMessage, type ServerResponse } from 'node:http';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { contentOf, noise } from '../support/image.ts';
import { type Mirror, startMirror } from '../support/mirror.ts';
import { sendContent, UpstreamRegistry } from '../support/upstream-registry.ts';

const REPOSITORY = 'library/app';
const layer = contentOf('application/octet-stream', noise(2_000_000));
const SIZE = layer.bytes.length;
const other = noise(SIZE, 5);
const CUT = 700_000;

suite('a body that breaks off', () => {
  let upstream: UpstreamRegistry;
  let mirror: Mirror;
  beforeEach(async () => {
    upstream = await UpstreamRegistry.start();
    upstream.pushBlob(REPOSITORY, layer);
    await start();
  });
  afterEach(async () => {
    upstream.fault = undefined;
    await mirror.close();
    await upstream.stop();
  });

  const start = async (options: Parameters<typeof startMirror>[1] = {}, more = ''): Promise<void> => {
    await mirror?.close();
    mirror = await startMirror(`upstreams: { docker.io: { endpoint: "${upstream.url}" ${more} } }`, options);
  };

  /** The first answer to a GET breaks off at {@link CUT}; the others are given by `then`. */
  const breaksOff = (
    first: (response: ServerResponse) => void,
    then: (request: IncomingMessage, response: ServerResponse) => void,
  ): void => {
    let asked = 0;
    upstream.fault = (request, response) => {
      if (request.method !== 'GET') return false;
      asked += 1;
      if (asked > 1) then(request, response);
      else {
        first(response);
        response.write(layer.bytes.subarray(0, CUT), () => response.destroy());
      }
      return true;
    };
  };
  /** What a client gets, and whether that is all of it. */
  const pull = async (): Promise<{ bytes: Buffer; isWhole: boolean }> => {
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const url = `${mirror.url}/v2/${REPOSITORY}/blobs/${layer.digest}`;
      get(url, { agent: false }, resolve).on('error', reject);
    });
    const chunks: Buffer[] = [];
    const isWhole = await new Promise<boolean>((resolve) => {
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', () => resolve(false));
      answer.on('end', () => resolve(true));
    });
    return { bytes: Buffer.concat(chunks), isWhole };
  };
  const assertRight = async (): Promise<void> => {
    const { bytes, isWhole } = await pull();
    assert.ok(isWhole && bytes.equals(layer.bytes));
  };
  /** No byte that is not the blob's, and the next pull has it all. */
  const assertCutAndRecovers = async (): Promise<void> => {
    const { bytes, isWhole } = await pull();
    assert.equal(isWhole, false);
    assert.ok(bytes.equals(layer.bytes.subarray(0, bytes.length)));
    upstream.fault = undefined;
    await assertRight();
  };

  test('is asked for under the strong ETag that it had, and goes on under it', async () => {
    breaksOff(withTag('"one"'), (request, response) => {
      response.setHeader('etag', '"one"');
      sendContent(request, response, layer);
    });
    await assertRight();
    assert.equal(upstream.seen.at(-1)?.headers['if-range'], '"one"');
  });

  test('and had a weak ETag is asked for by its range alone', async () => {
    breaksOff(withTag('W/"one"'), (request, response) => sendContent(request, response, layer));
    await assertRight();
    assert.equal(upstream.seen.at(-1)?.headers['if-range'], undefined);
    assert.match(upstream.seen.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d*-$/);
  });

  test('does not go on as another one of the same size, which comes from its beginning', async () => {
    breaksOff(withTag('"one"'), (request, response) => {
      assert.equal(request.headers['if-range'], '"one"');
      withTag('"two"')(response).end(other);
    });
    await assertCutAndRecovers();
  });

  test('does not go on as another one of which the upstream sends a part all the same', async () => {
    breaksOff(withTag('"one"'), (request, response) => {
      response.setHeader('etag', '"two"');
      sendContent(request, response, { ...layer, bytes: other });
    });
    await assertCutAndRecovers();
  });

  test('goes on when another machine of the upstream calls the same bytes otherwise', async () => {
    breaksOff(withTag('"one"'), (request, response) => {
      response.setHeader('etag', '"two"');
      sendContent(request, response, layer);
    });
    await assertRight();
  });

  test('of unknown length goes on from where it ended', async () => {
    breaksOff(
      (response) => response.writeHead(200),
      (request, response) => sendContent(request, response, layer),
    );
    await assertRight();
    assert.match(upstream.seen.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d*-$/);
  });

  test('of unknown length for good is unavailable, and had by the next pull', async () => {
    breaksOff(
      (response) => response.writeHead(200),
      (_, response) => response.destroy(),
    );
    const answer = await fetch(`${mirror.url}/v2/${REPOSITORY}/blobs/${layer.digest}`);
    assert.equal(answer.status, 503);
    upstream.fault = undefined;
    await assertRight();
  });

  test('goes on by Range also without room on the local disk', async () => {
    await start({ spoolLimit: 1_000_000 });
    let asked = 0;
    upstream.fault = (request, response) => {
      if (request.method !== 'GET') return false;
      asked += 1;
      // The first reading is given up for want of room.
      if (asked !== 2) return false;
      withTag('"one"')(response).write(layer.bytes.subarray(0, CUT), () => response.destroy());
      return true;
    };
    await assertRight();
    assert.equal(asked, 3);
    assert.match(upstream.seen.at(-1)?.headers.range ?? '', /^bytes=[1-9]\d*-$/);
  });

  test('as it has stalled for the time that its upstream is given goes on', { timeout: 20_000 }, async () => {
    await start(
      { timeouts: { connect: 60_000, answer: 60_000, idle: 60_000 } },
      ', timeouts: { idle: 100ms }',
    );
    let asked = 0;
    upstream.fault = (request, response) => {
      asked += 1;
      if (request.method !== 'GET' || asked > 1) return false;
      response.writeHead(200, { 'content-length': SIZE }).write(layer.bytes.subarray(0, CUT));
      return true;
    };
    await assertRight();
    assert.equal(asked, 2);
  });
});

const withTag = (etag: string) => (response: ServerResponse) =>
  response.writeHead(200, { 'content-length': SIZE, etag });
