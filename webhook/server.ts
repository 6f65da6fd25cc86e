import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2';
import type { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { Identity } from '../process/certificates.ts';
import type { Logger } from '../process/log.ts';
import { type Address, listen, secureOptions } from '../process/server.ts';
import { type AdmissionRequest, type Answer, formatAnswer, readReview } from './admission-review.ts';

/** Decides about one kind of review. It never rejects. */
type Decide = (request: AdmissionRequest) => Promise<Answer>;

export interface WebhookServerOptions {
  readonly address: Address;
  readonly identity: Identity;
  /** By path. */
  readonly decisions: ReadonlyMap<string, Decide>;
  readonly log: Logger;
  /** Milliseconds for which a server that is to stop goes on, so that API servers learn that it does. */
  readonly farewellMs?: number;
}

export interface WebhookServer {
  readonly address: Address;
  /** Serves with another certificate from the next connection on. */
  renew(identity: Identity): void;
  /** Answers for a while, tells every client to come with a new connection, and closes what is left. */
  drain(): Promise<void>;
}

/** Two objects of the largest size that etcd takes, and what is around them. */
const MAX_BODY = 8 * 1024 * 1024;
/** Of one client, in MB: reviews that come at once. */
const MAX_SESSION_MEMORY = 64;
const FAREWELL_MS = 3_000;
/** Longer than any answer. */
const CUT_MS = 5_000;

/**
 * HTTPS for API servers. They speak HTTP/2, where however many reviews come at once need one connection; whoever does
 * not is answered too.
 *
 * @throws Error that names the address, when it cannot be listened on.
 */
export async function serveWebhook(options: WebhookServerOptions): Promise<WebhookServer> {
  const { address, identity, decisions, log, farewellMs = FAREWELL_MS } = options;
  const server = createSecureServer({
    ...secureOptions(identity),
    allowHTTP1: true,
    maxSessionMemory: MAX_SESSION_MEMORY,
  });
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // A client that breaks off is no news.
  server.on('sessionError', () => undefined);
  let isLeaving = false;
  server.on('request', (request, response) => {
    if (isLeaving && request.httpVersionMajor === 1) response.setHeader('connection', 'close');
    // Of HTTP/2, it stands for what belongs to this request alone.
    const { socket } = request;
    answer(request, response, decisions).catch((error: unknown) => {
      log.warn({ err: error }, 'a review was not answered');
      socket.destroy();
    });
  });
  return {
    address: await listen(server, address, log),
    renew: (renewed) => server.setSecureContext(secureOptions(renewed)),
    async drain() {
      isLeaving = true;
      await pause(farewellMs);
      await close(server, sockets);
    },
  };
}

async function answer(
  request: Http2ServerRequest,
  response: Http2ServerResponse,
  decisions: ReadonlyMap<string, Decide>,
): Promise<void> {
  const decide = decisions.get(request.url.split('?', 1)[0] ?? '');
  if (decide === undefined || request.method !== 'POST') {
    response.writeHead(decide === undefined ? 404 : 405).end();
    return;
  }
  const text = await textOf(request);
  const { uid, request: review } = readReview(text);
  const body = formatAnswer(uid, review === undefined ? {} : await decide(review));
  response
    .writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
    .end(body);
}

/** @throws Error when there is more than any object has; the connection is closed then. */
async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > MAX_BODY) throw new Error(`a review is longer than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length).toString('utf8');
}

async function close(server: Http2SecureServer, sockets: ReadonlySet<Socket>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  // Every connection of HTTP/2 answers what it was asked, and tells its client to come with another (GOAWAY).
  server.close(() => resolve());
  // Also connections on which nothing was asked yet.
  const cut = setTimeout(() => {
    for (const socket of sockets) socket.destroy();
  }, CUT_MS);
  await promise;
  clearTimeout(cut);
}
