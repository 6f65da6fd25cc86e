import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';
import { freePort } from '../test/containerd/port.ts';

/** What a request is for, as far as faults differ in it. */
export type Operation = 'read' | 'write' | 'part';

export type S3Fault =
  /** The server is not asked; this is the answer. */
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** What was asked is never answered. */
  | { readonly kind: 'silence' }
  /** Answers of more than this stop there, and the connection is kept. */
  | { readonly kind: 'stall'; readonly after: number }
  /** What is written is acknowledged and lost. */
  | { readonly kind: 'loss' };

/** Of bytes that the server has never seen. */
const LOST_ETAG = '"00000000000000000000000000000000"';

/** Asked for every request; what it gives is done to it. */
export type ChooseFault = (operation: Operation) => S3Fault | undefined;

/** Stands between weir and a real server, and breaks what a fault wants broken. */
export class FaultyS3 {
  readonly endpoint: string;
  /** Requests since the last fault was set. */
  requests = 0;
  readonly #target: URL;
  readonly #port: number;
  #choose: ChooseFault | undefined;
  #server: Server | undefined;

  private constructor(target: string, port: number) {
    this.#target = new URL(target);
    this.#port = port;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async start(target: string): Promise<FaultyS3> {
    const proxy = new FaultyS3(target, await freePort());
    await proxy.resume();
    return proxy;
  }

  setFault(choose: ChooseFault | undefined): void {
    this.requests = 0;
    this.#choose = choose;
  }

  /** Cuts every connection, and refuses new ones until {@link resume}. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }

  async resume(): Promise<void> {
    if (this.#server !== undefined) return;
    this.#server = createServer((incoming, outgoing) => this.#handOn(incoming, outgoing));
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  #handOn(incoming: IncomingMessage, outgoing: ServerResponse): void {
    this.requests += 1;
    const fault = this.#choose?.(operationOf(incoming));
    if (fault?.kind === 'silence') return;
    if (fault?.kind === 'status') {
      refuse(incoming, outgoing, fault.status, fault.code);
      return;
    }
    if (fault?.kind === 'loss') {
      incoming.resume().once('end', () => outgoing.writeHead(200, { etag: LOST_ETAG }).end());
      return;
    }
    const { hostname, port } = this.#target;
    const { method, url: path, headers } = incoming;
    // The Host header is part of the signature and goes on as it came.
    const upstream = request({ hostname, port, method, path, headers }, (answer) => {
      if (outgoing.destroyed) answer.destroy();
      else {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        if (fault === undefined) pipeline(answer, outgoing, () => undefined);
        else stall(answer, outgoing, fault.after);
      }
    });
    upstream.on('error', () => outgoing.destroy());
    pipeline(incoming, upstream, () => undefined);
  }
}

function stall(answer: IncomingMessage, outgoing: ServerResponse, after: number): void {
  let left = after;
  outgoing.once('close', () => answer.destroy());
  answer.once('end', () => {
    if (left >= 0) outgoing.end();
  });
  answer.on('data', (chunk: Buffer) => {
    outgoing.write(chunk.subarray(0, Math.max(0, left)));
    left -= chunk.length;
    if (left < 0) answer.pause();
  });
}

function refuse(incoming: IncomingMessage, outgoing: ServerResponse, status: number, code: string): void {
  incoming.resume().once('end', () => {
    outgoing.writeHead(status, { 'content-type': 'application/xml' });
    const body = `<Error><Code>${code}</Code><Message>by the benchmark</Message></Error>`;
    outgoing.end(incoming.method === 'HEAD' ? undefined : body);
  });
}

function operationOf({ method, url = '/' }: IncomingMessage): Operation {
  if (method === 'PUT' && url.includes('partNumber=')) return 'part';
  return method === 'GET' || method === 'HEAD' ? 'read' : 'write';
}
