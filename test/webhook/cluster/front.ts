import { once } from 'node:events';
import { request as ask, createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Stands before a registry, and fails as it is told to. */
export class Front {
  mode: 'hand on' | 'refuse' | 'hang' | 'fail' = 'hand on';
  /** How often it was asked. */
  asked = 0;
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  static async start(registry: string): Promise<Front> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    const { port } = address satisfies AddressInfo;
    const front = new Front(server, `http://127.0.0.1:${port}`);
    server.on('request', (request, response) => {
      front.asked += 1;
      if (front.mode === 'hang') return;
      if (front.mode === 'refuse') request.socket.destroy();
      else if (front.mode === 'fail') response.writeHead(502).end();
      else {
        const { method, headers } = request;
        const onward = ask(
          new URL(request.url ?? '', registry),
          { method: method ?? '', headers },
          (answer) => {
            response.writeHead(answer.statusCode ?? 500, answer.headers);
            answer.pipe(response);
          },
        );
        onward.on('error', () => response.destroy());
        request.pipe(onward);
      }
    });
    return front;
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close').catch(() => undefined);
  }
}
