import { createServer, type Server as HttpServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer, type Server as HttpsServer } from 'node:https';
import { isIPv6, type Server as NetServer, type Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import type { Identity } from './certificates.ts';
import { UsageError } from './lifecycle.ts';
import type { Logger } from './log.ts';

/** Longer than the idle time of the clients' pools, so that it is they who close an idle connection. */
const KEEP_ALIVE_MS = 95_000;
/** How long answers in progress may take after SIGTERM, before their connections are cut. */
const DRAIN_MS = 25_000;
const IDLE_CHECK_MS = 50;
/** Requests on one connection that wait for an answer. */
const MAX_PIPELINED = 4;
/** For a client to come to terms about TLS. */
const HANDSHAKE_MS = 10_000;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `127.0.0.1:5000`, `[::1]:5000`, `:5000` (every address) or port 0 (a free one).
 *
 * @throws UsageError when the text is none of these.
 */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const [, six, other = ''] = match ?? [];
  if (match === null || port > 65_535 || (six !== undefined && !isIPv6(six)))
    throw new UsageError(`"${text}" is no address to listen on; write HOST:PORT, for example 127.0.0.1:5000`);
  return { host: six ?? other, port };
}

/** `http://HOST:PORT` under which a listener on this address is reached from the same machine. */
export function urlOf({ host, port }: Address, scheme: 'http' | 'https' = 'http'): string {
  if (host === '' || host === '0.0.0.0') return `${scheme}://127.0.0.1:${port}`;
  if (host === '::') return `${scheme}://[::1]:${port}`;
  return isIPv6(host) ? `${scheme}://[${host}]:${port}` : `${scheme}://${host}:${port}`;
}

/** What a listener answers with over TLS, for as long as it listens. */
export interface ServedCertificate {
  readonly identity: Identity;
  /** Calls when there is another one. @returns a function that ends that. */
  subscribe(renewed: () => void): () => void;
}

export interface RunningServer {
  /** With the port that was really taken. */
  readonly address: Address;
  /** Takes no new connections, lets answers finish for {@link DRAIN_MS} and closes what is left. */
  drain(): Promise<void>;
}

/**
 * HTTP/1.1, and nothing but TLS where there is a certificate.
 *
 * @throws Error that names the address, when it cannot be listened on.
 */
export async function serve(
  listener: RequestListener,
  address: Address,
  log: Logger,
  certificate?: ServedCertificate,
): Promise<RunningServer> {
  const { server, unsubscribe } =
    certificate === undefined ? { server: createServer(OPTIONS) } : secureServer(certificate, log);
  const unused = unusedConnections(server);
  limitPipelining(server);
  server.on('request', (request, response) => {
    if (!request.socket.destroyed) listener(request, response);
  });
  return {
    address: await listen(server, address, log),
    async drain() {
      unsubscribe?.();
      await drain(server, unused, log);
    },
  };
}

const OPTIONS = { keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true };

function secureServer(certificate: ServedCertificate, log: Logger) {
  const secure = secureOptions(certificate.identity);
  const server = createSecureServer({ ...OPTIONS, ...secure, handshakeTimeout: HANDSHAKE_MS });
  server.on('tlsClientError', (error, { remoteAddress }) =>
    log.debug({ err: error, remoteAddress }, 'a client did not come to terms about TLS'),
  );
  const renew = (): void => server.setSecureContext(secureOptions(certificate.identity));
  return { server, unsubscribe: certificate.subscribe(renew) };
}

/** @returns the address with the port that was really taken. @throws Error that names it, when it cannot be listened on. */
export async function listen(server: NetServer, { host, port }: Address, log: Logger): Promise<Address> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', (cause) => {
    reject(new Error(`cannot listen on ${host}:${port}`, { cause }));
  });
  server.listen({ port, ...(host === '' ? {} : { host }) }, resolve);
  await promise;
  server.on('error', (error) => log.error({ err: error }, 'listener failed'));
  const bound = server.address();
  return { host, port: bound !== null && typeof bound === 'object' ? bound.port : port };
}

/** How weir serves over TLS, whatever is spoken on it. */
export function secureOptions({ cert, key }: Identity): SecureContextOptions {
  return { cert, key, minVersion: 'TLSv1.2' };
}

/**
 * The connections on which nothing was asked yet, by their other ends. Clients written in Go open some in advance, and
 * Node counts those neither as idle nor as busy, so that closing the server would wait for them.
 */
function unusedConnections(server: HttpServer | HttpsServer): ReadonlyMap<string, Socket> {
  const unused = new Map<string, Socket>();
  const add = (socket: Socket): void => {
    const peer = peerOf(socket);
    unused.set(peer, socket);
    socket.once('close', () => unused.delete(peer));
  };
  server.on('connection', add);
  // What carries TLS gives way to what it carries.
  server.on('secureConnection', add);
  server.on('request', ({ socket }) => unused.delete(peerOf(socket)));
  return unused;
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** Node hands over pipelined requests all at once. No client of ours pipelines, and each costs a file and a buffer. */
function limitPipelining(server: HttpServer | HttpsServer): void {
  const open = new WeakMap<Socket, number>();
  server.on('request', ({ socket }, response) => {
    const requests = (open.get(socket) ?? 0) + 1;
    open.set(socket, requests);
    response.once('close', () => open.set(socket, (open.get(socket) ?? 1) - 1));
    if (requests > MAX_PIPELINED) socket.destroy();
  });
}

async function drain(
  server: HttpServer | HttpsServer,
  unused: ReadonlyMap<string, Socket>,
  log: Logger,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  // Closes idle connections too; those that are busy close after their answer.
  server.close(() => resolve());
  for (const socket of unused.values()) socket.destroy();
  // A connection that was kept alive is idle again after its answer, and Node would keep it.
  const closeIdle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
  const deadline = setTimeout(() => {
    log.warn({ afterMs: DRAIN_MS }, 'answers still in progress were cut off');
    server.closeAllConnections();
  }, DRAIN_MS);
  await promise;
  clearTimeout(deadline);
  clearInterval(closeIdle);
}
