import assert from 'node:assert/strict';
import { mkdir, symlink } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttp2Server, type Http2Server } from 'node:http2';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { pino } from 'pino';
import { type CallOptions, Cri, type CriPlace } from '../../agent/cri.ts';
import type { RuntimeVersion } from '../../agent/cri-answers.ts';
import { prove } from '../../agent/proof.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { listen, startCri } from './scripted-cri.ts';

suite('a socket', () => {
  test('that is none of a runtime with CRI v1 is told what it is', async (t) => {
    const scratch = await makeScratch();
    t.after(() => removeScratch(scratch));
    const path = (name: string) => join(scratch, name);
    await listen(
      t,
      createHttpServer((_, response) => void response.end()),
      path('http1'),
    );
    await listen(
      t,
      createServer((socket) => void socket.end()),
      path('closes'),
    );
    const mute = createServer((socket) => t.after(() => socket.destroy()));
    await listen(t, mute, path('mute'));
    await assert.rejects(versionAt({ socket: path('mute') }, { timeout: 200 }), {
      name: 'CriError',
      kind: 'timeout',
      message: /^no answer at .*mute within 0\.2 s$/,
    });
    await listen(t, answering(''), path('other'));
    await listen(t, answering('/runtime.v1alpha2.RuntimeService/Version'), path('old'));
    for (const [name, message] of [
      ['absent', /^no container runtime answers at .*absent: there is no such socket$/],
      ['http1', /^no container runtime answers at .*http1: /],
      ['closes', /^no container runtime answers at .*closes: /],
      [
        'other',
        /does not speak CRI \(runtime\.v1\.RuntimeService is unknown\)\. Is its CRI plugin disabled, or did it fail/,
      ],
      ['old', /speaks CRI v1alpha2 only\. Upgrade the runtime: containerd 1\.6 or newer speaks v1\.$/],
    ] as const) {
      await assert.rejects(versionAt({ socket: path(name) }), { name: 'CriError', message });
      const proof = await prove({
        socket: path(name),
        mirror: 'http://127.0.0.1:9',
        certsDir: '/',
        log: pino({ level: 'silent' }),
      });
      assert.equal(proof.kind, 'unproven');
      assert.match('reason' in proof ? proof.reason : '', message);
    }
  });

  test('is found where the node has it, below the place where its file system is mounted', async (t) => {
    const scratch = await makeScratch();
    t.after(() => removeScratch(scratch));
    await mkdir(join(scratch, 'run', 'containerd'), { recursive: true });
    await mkdir(join(scratch, 'var'));
    await symlink('/run', join(scratch, 'var', 'run'));
    const cri = await startCri(join(scratch, 'run', 'containerd', 'containerd.sock'));
    t.after(() => cri.close());
    assert.deepEqual(await versionAt({ root: scratch, socket: '/var/run/containerd/containerd.sock' }), {
      name: 'containerd',
      version: '1.2.3',
    });
  });
});

async function versionAt(place: CriPlace, options?: CallOptions): Promise<RuntimeVersion> {
  const cri = await Cri.connect(place);
  try {
    return await cri.version(options);
  } finally {
    cri.close();
  }
}

/** Speaks gRPC, and knows one method. */
function answering(known: string): Http2Server {
  return createHttp2Server().on('stream', (stream, headers) => {
    const isKnown = headers[':path'] === known;
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': isKnown ? '0' : '12' }));
    stream.end(isKnown ? Buffer.alloc(5) : undefined);
  });
}
