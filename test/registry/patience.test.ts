import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { afterEach, suite, test } from 'node:test';
import { digestOf } from '../../oci/digest.ts';
import { answerBlob } from '../../registry/answer.ts';
import type { StoredBlob } from '../../registry/store.ts';

const CLIENT_IDLE_MS = 50;
const digest = digestOf('any');

suite('a client of a blob', () => {
  let server: Server;
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });

  /** The client's end of an answer with this blob, the server's end, and what has become of the answer. */
  const answer = async (
    blobOf: (response: ServerResponse) => StoredBlob,
  ): Promise<{ incoming: IncomingMessage; outcome: Promise<'answered' | 'cut'> }> => {
    const outcome = Promise.withResolvers<'answered' | 'cut'>();
    server = createServer((request, response) => {
      answerBlob(request, response, digest, blobOf(response), 'miss', CLIENT_IDLE_MS).then(
        () => outcome.resolve('answered'),
        () => outcome.resolve('cut'),
      );
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      get({ host: '127.0.0.1', port: address.port, agent: false }, resolve).on('error', reject);
    });
    incoming.on('error', () => undefined);
    return { incoming, outcome: outcome.promise };
  };

  test('is not cut while it waits for bytes that are not there yet', async () => {
    const { incoming, outcome } = await answer((response) => ({
      size: 4,
      close: () => Promise.resolve(),
      copyTo: async (write) => {
        for (const text of ['ab', 'cd']) {
          await once(response, 'timeout');
          await write(Buffer.from(text));
        }
      },
    }));
    let body = '';
    for await (const chunk of incoming) body += String(chunk);
    assert.equal(body, 'abcd');
    assert.equal(await outcome, 'answered');
  });

  test('is cut when it takes none of those that are, also after it had to wait', {
    timeout: 20_000,
  }, async () => {
    const chunk = Buffer.alloc(1_000_000);
    const { incoming, outcome } = await answer((response) => ({
      size: 1_000 * chunk.length,
      close: () => Promise.resolve(),
      copyTo: async (write) => {
        await once(response, 'timeout');
        for (let count = 0; count < 1_000; count += 1) await write(chunk);
      },
    }));
    incoming.pause();
    assert.equal(await outcome, 'cut');
  });
});
