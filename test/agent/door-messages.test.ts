import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAnswerHead } from '../../agent/door-answer.ts';
import { bodyOf } from '../../agent/door-body.ts';
import { readRequest, requestHead } from '../../agent/door-request.ts';
import { ownPlatform } from '../../oci/platform.ts';

const BLOB = `/v2/library/web/blobs/sha256:${'a'.repeat(64)}?ns=docker.io`;

test('what the registry could read as another path is refused, and so is all that is no pull', () => {
  const refused: readonly (readonly [method: string, target: string, status: number])[] = [
    ['POST', '/v2/library/web/blobs/uploads/', 405],
    ['DELETE', '/v2/library/web/manifests/1', 405],
    ['OPTIONS', '*', 405],
    ['GET', 'http://elsewhere/v2/library/web/manifests/1', 400],
    ['GET', '/', 404],
    ['GET', '/metrics', 404],
    ['GET', '/livez', 404],
    ['GET', '/v2x/library/web/manifests/1', 404],
    ['GET', '//v2/library/web/manifests/1', 404],
    ['GET', '/v2/../metrics', 400],
    ['GET', '/v2/library/../../metrics', 400],
    ['GET', '/v2/library/./web/manifests/1', 400],
    ['GET', '/v2/library/..', 400],
    ['GET', '/v2//library/web/manifests/1', 400],
    ['GET', '/v2/%2e%2e/metrics', 400],
    ['GET', '/v2/%2E./metrics', 400],
    ['GET', '/v2/library%2fweb/manifests/1', 400],
    ['GET', '/v2/library%5Cweb/manifests/1', 400],
    ['GET', '/v2/library%252fweb/manifests/1', 400],
    ['GET', '/v2/library\\web/manifests/1', 400],
    ['GET', '/v2/library%00/manifests/1', 400],
    ['GET', '/v2/library%/manifests/1', 400],
    ['GET', '/v2/library/web/manifests/1#x', 400],
    ['GET', '/v2/library/web/manifests/1?ns=a?ns=b', 400],
    ['GET', `/v2/${'x'.repeat(5000)}/manifests/1`, 400],
  ];
  for (const [method, target, status] of refused) {
    const read = readRequest(method, target, []);
    assert.equal('status' in read ? read.status : 'handed on', status, `${method} ${target}`);
  }
  for (const target of ['/v2', '/v2/', BLOB, '/v2/a/b/c/manifests/sha256%3Aabc', '/v2/a/referrers/x?n=%2F..'])
    assert.ok('target' in readRequest('GET', target, []), target);
  const withBody = readRequest('GET', '/v2/a/manifests/1', ['Transfer-Encoding', 'chunked']);
  assert.equal('status' in withBody ? withBody.status : undefined, 400);
});

test('a request is handed on without the headers that concern only its own connection', () => {
  const headers = ['Host', '127.0.0.1:5700', 'Accept', 'a/b', 'accept', 'c/d', 'Authorization', 'Bearer x'];
  const own = [
    'Connection',
    'close, X-Own',
    'X-Own',
    '1',
    'Keep-Alive',
    '5',
    'TE',
    'trailers',
    'Upgrade',
    'h2c',
    'Weir-Platform',
    'linux/s390x',
  ];
  const read = readRequest('GET', BLOB, [...headers, ...own, 'Range', 'bytes=5-', 'If-None-Match', '"x"']);
  assert.ok('target' in read);
  assert.equal(
    requestHead(read, { host: 'fd00::1', port: 5000 }),
    `GET ${BLOB} HTTP/1.1\r\nHost: [fd00::1]:5000\r\nAccept: a/b\r\naccept: c/d\r\nAuthorization: Bearer x\r\n` +
      `Range: bytes=5-\r\nIf-None-Match: "x"\r\nVia: 1.1 weir-door\r\nweir-platform: ${ownPlatform()}\r\n\r\n`,
  );
  assert.equal(read.repository, 'library/web');
});

test('the head of an answer is read as it is meant or not at all', () => {
  const framings: readonly (readonly [text: string, framing: unknown, keepAlive: boolean])[] = [
    ['HTTP/1.1 200 OK\nContent-Length: 5\n\n', { kind: 'length', length: 5 }, true],
    ['HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n', { kind: 'chunked' }, true],
    ['HTTP/1.1 200 OK\n\n', { kind: 'close' }, false],
    ['HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n', { kind: 'length', length: 0 }, true],
    ['HTTP/1.1 204\n\n', { kind: 'length', length: 0 }, true],
    ['HTTP/1.1 200 OK\nConnection: Close\nContent-Length: 5\n\n', { kind: 'length', length: 5 }, false],
    ['HTTP/1.0 200 OK\nContent-Length: 5\n\n', { kind: 'length', length: 5 }, false],
  ];
  for (const [text, framing, keepAlive] of framings) {
    assert.deepEqual(head(text)?.framing, framing, text);
    assert.equal(head(text)?.keepAlive, keepAlive, text);
  }
  assert.deepEqual(head('HTTP/1.1 200 OK\nContent-Length: 5\n\n', 'HEAD')?.framing, {
    kind: 'length',
    length: 0,
  });
  assert.deepEqual(head('HTTP/1.1 200 OK\nA: 1\nKeep-Alive: 5\nConnection: b\nB: 2\na:  \t3 \n\n')?.headers, [
    'A',
    '1',
    'a',
    '3',
  ]);
  assert.equal(head('HTTP/1.1 200 OK\nContent-Le'), undefined);
  const malformed = [
    'HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n',
    'HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n',
    'HTTP/1.1 200 OK\nContent-Length: -5\n\n',
    'HTTP/1.1 200 OK\nContent-Length: 5, 5\n\n',
    'HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n',
    'HTTP/1.1 200 OK\nA: 1\n folded\n\n',
    'HTTP/1.1 200 OK\nA : 1\n\n',
    'HTTP/1.1 200 OK\nno colon\n\n',
    'HTTP/2 200\n\n',
    'SSH-2.0-OpenSSH\n\n',
    `HTTP/1.1 200 OK\nA: ${'x'.repeat(70_000)}`,
  ];
  for (const text of malformed) assert.throws(() => head(text), Error, text.slice(0, 80));
});

test('a chunked body is found wherever the network cuts it', () => {
  const bytes = Buffer.from('5;name=value\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n');
  for (let cut = 0; cut <= bytes.length; cut++) {
    const body = bodyOf({ kind: 'chunked' });
    const parts = [bytes.subarray(0, cut), bytes.subarray(cut)].flatMap((piece) => [...body.take(piece)]);
    assert.equal(Buffer.concat(parts).toString(), 'hello, world');
    assert.ok(body.done && !body.excess);
    const half = bodyOf({ kind: 'chunked' });
    for (const _ of half.take(bytes.subarray(0, cut)));
    if (cut < bytes.length) assert.throws(() => half.end(), /early/);
  }
  for (const text of ['x\r\n', '5\nhello', '5\r\nhelloX\r\n', '-1\r\n', '0'.repeat(5000)])
    assert.throws(() => [...bodyOf({ kind: 'chunked' }).take(Buffer.from(text))], Error, text.slice(0, 20));
  const counted = bodyOf({ kind: 'length', length: 3 });
  assert.deepEqual([...counted.take(Buffer.from('abcd'))].map(String), ['abc']);
  assert.ok(counted.done && counted.excess);
});

/** Reads a head whose lines end as in a file. */
function head(text: string, method: 'GET' | 'HEAD' = 'GET') {
  return readAnswerHead(Buffer.from(text.replaceAll('\n', '\r\n'), 'latin1'), method)?.head;
}
