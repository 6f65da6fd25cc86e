// The registry that the conformance suite sees: it pushes what it then wants to pull, and weir takes no pushes.
// So what reads goes to weir, and what writes to weir's upstream.

import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';

/** A request for content, as weir answered it. */
export interface Pull {
  readonly method: string;
  readonly path: string;
  readonly status: number;
}

export interface Front {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** What went to weir, in the order of its answers. */
  readonly pulls: readonly Pull[];
  close: () => Promise<void>;
}

export async function startFront({ weir, upstream }: { weir: string; upstream: string }): Promise<Front> {
  const pulls: Pull[] = [];
  const agent = new Agent({ keepAlive: true });
  const server = createServer((incoming, response) => {
    const { method = '', url = '/' } = incoming;
    const reads = isPull(method, url);
    const answered = forward(incoming, response, new URL(url, reads ? weir : upstream), agent);
    answered.then(
      (status) => reads && pulls.push({ method, path: url, status }),
      // The suite sees a connection that breaks off, and says in which case.
      () => response.destroy(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the front does not listen');
  return {
    host: `127.0.0.1:${address.port}`,
    pulls,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
      agent.destroy();
    },
  };
}

/** The state of an upload is asked for with GET, and is part of a push all the same. */
function isPull(method: string, path: string): boolean {
  return (method === 'GET' || method === 'HEAD') && !/\/blobs\/uploads\//.test(path);
}

/** Passes both on as they are, `Host` too, so that an upload's `Location` leads back here. */
async function forward(
  incoming: IncomingMessage,
  response: ServerResponse,
  target: URL,
  agent: Agent,
): Promise<number> {
  const { method, headers } = incoming;
  const outgoing = request(target, { method, headers, agent });
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  outgoing.on('response', resolve).on('error', reject);
  await pipeline(incoming, outgoing);
  const answer = await promise;
  const status = answer.statusCode ?? 502;
  response.writeHead(status, answer.headers);
  await pipeline(answer, response);
  return status;
}
