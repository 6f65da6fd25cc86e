import { once } from 'node:events';
import {
  request as askHttp,
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { request as askHttps } from 'node:https';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';

/** Stands between one client and an API server, and hands everything on, watches too, as late as it is told to. */
export class ApiFront {
  /** Milliseconds by which a request, and whatever is told by a watch, comes late. */
  delayMs = 0;
  /** Every request: its method and its path. */
  readonly asked: string[] = [];
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  static async start(apiServer: string): Promise<ApiFront> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    const front = new ApiFront(server, `http://127.0.0.1:${address.port}`);
    server.on('request', (request, response) => void front.#handOn(request, response, apiServer));
    return front;
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async #handOn(request: IncomingMessage, response: ServerResponse, apiServer: string): Promise<void> {
    const { method = '', headers } = request;
    const url = new URL(request.url ?? '', apiServer);
    this.asked.push(`${method} ${url.pathname}`);
    await pause(this.delayMs);
    const ask = url.protocol === 'https:' ? askHttps : askHttp;
    const onward = ask(url, { method, headers, rejectUnauthorized: false });
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      response.flushHeaders();
      const late = (chunks: AsyncIterable<Uint8Array>) => this.#late(chunks);
      // Either side may go at any time.
      pipeline(answer, late, response).catch(() => response.destroy());
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }

  async *#late(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      if (this.delayMs > 0) await pause(this.delayMs);
      yield chunk;
    }
  }
}
