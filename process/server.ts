import { createServer, type RequestListener, type Server } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import { UsageError } from './lifecycle.ts';
import type { Logger } from './log.ts';

/** Longer than the idle time of the clients' pools, so that it is they who close an idle connection. */
const KEEP_ALIVE_MS = 95_000;
/** How long answers in progress may take after SIGTERM, before their connections are cut. */
const DRAIN_MS = 25_000;
const IDLE_CHECK_MS = 50;
/** Requests on one connection that wait for an answer. */
const MAX_PIPELINED = 4;

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
export function urlOf({ host, port }: Address): string {
  if (host === '' || host === '0.0.0.0') return `http://127.0.0.1:${port}`;
  if (host === '::') return `http://[::1]:${port}`;
  return isIPv6(host) ? `http://[${host}]:${port}` : `http://${host}:${port}`;
}

export interface RunningServer {
  /** With the port that was really taken. */
  readonly address: Address;
  /** Takes no new connections, lets answers finish for {@link DRAIN_MS} and closes what is left. */
  drain(): Promise<void>;
}

/** @throws Error that names the address, when it cannot be listened on. */
export async function serve(
  listener: RequestListener,
  address: Address,
  log: Logger,
): Promise<RunningServer> {
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true });
  const unused = unusedConnections(server);
  limitPipelining(server);
  server.on('request', (request, response) => {
    if (!request.socket.destroyed) listener(request, response);
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', (cause) => {
    reject(new Error(`cannot listen on ${address.host}:${address.port}`, { cause }));
  });
  server.listen({ port: address.port, ...(address.host === '' ? {} : { host: address.host }) }, resolve);
  await promise;
  server.on('error', (error) => log.error({ err: error }, 'listener failed'));
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : address.port;
  return { address: { host: address.host, port }, drain: () => drain(server, unused, log) };
}

/**
 * The connections on which nothing was asked yet. Clients written in Go open some in advance, and Node counts
 * those neither as idle nor as busy, so that closing the server would wait for them.
 */
function unusedConnections(server: Server): ReadonlySet<Socket> {
  const unused = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', (request) => unused.delete(request.socket));
  return unused;
}

/** Node hands over pipelined requests all at once. No client of ours pipelines, and each costs a file and a buffer. */
function limitPipelining(server: Server): void {
  const open = new WeakMap<Socket, number>();
  server.on('request', ({ socket }, response) => {
    const requests = (open.get(socket) ?? 0) + 1;
    open.set(socket, requests);
    response.once('close', () => open.set(socket, (open.get(socket) ?? 1) - 1));
    if (requests > MAX_PIPELINED) socket.destroy();
  });
}

async function drain(server: Server, unused: ReadonlySet<Socket>, log: Logger): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  // Closes idle connections too; those that are busy close after their answer.
  server.close(() => resolve());
  for (const socket of unused) socket.destroy();
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
