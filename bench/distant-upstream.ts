/**
 * A registry that is far away, as a process of its own: `node bench/distant-upstream.ts [--tokens] [--tls DIRECTORY]`. A new
 * connection costs a round trip, each request one more, and all bodies share one byte rate. It writes its two
 * ports to standard output, listens to {@link faultSchema} and its like on the second, and ends with its standard
 * input.
 */
import { readFile } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Content, type GeneratedImage, generateImage } from './generated-image.ts';
import { Link } from './link.ts';
import {
  type Fault,
  faultSchema,
  type LinkSettings,
  linkSchema,
  pushSchema,
  type Seen,
  type SeenRequest,
} from './upstream-control.ts';

const ROUND_TRIP_MS = 30;
const BYTES_PER_SECOND = 125_000_000;
/** Longer than any pause of a benchmark: it is the clients that close idle connections. */
const KEEP_ALIVE_MS = 120_000;
const TOKEN = 'anonymous';

const { values } = parseArgs({
  options: { tokens: { type: 'boolean', default: false }, tls: { type: 'string' } },
});

const link = new Link(BYTES_PER_SECOND);
let roundTripMs = ROUND_TRIP_MS;
let fault: Fault = { kind: 'none' };
let seen: Seen = { connections: 0, requests: [] };
const manifests = new Map<string, Content>();
const blobs = new Map<string, Content>();
/** When what was sent on a connection first can be here: its handshake takes a round trip. */
const openFrom = new WeakMap<Socket, number>();

const data = await listen((request, response) => void answer(request, response), values.tls);
data.on('connection', (socket: Socket) => {
  seen = { ...seen, connections: seen.connections + 1 };
  openFrom.set(socket, performance.now() + roundTripMs);
});
const dataPort = portOf(data);
const control = await listen((request, response) => void answerControl(request, response));
console.log(JSON.stringify({ data: dataPort, control: portOf(control) }));
process.stdin.on('close', () => process.exit(0)).resume();

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const record: SeenRequest = {
    method: request.method ?? '',
    path: request.url ?? '',
    ...(request.headers.range === undefined ? {} : { range: request.headers.range }),
    status: 0,
    bytes: 0,
    began: Date.now(),
  };
  seen.requests.push(record);
  response.once('close', () => {
    record.ended = Date.now();
  });
  const now = performance.now();
  await setTimeout(Math.max(0, (openFrom.get(request.socket) ?? 0) - now) + roundTripMs);
  if (fault.kind === 'silence' || response.destroyed) return;
  // Named, so that Node does not add how long it would keep the connection: most registries do not tell.
  response.setHeader('connection', 'keep-alive');
  response.once('finish', () => {
    record.status = response.statusCode;
  });
  if (fault.kind === 'status') return sendJson(response, fault.status, { errors: [] });
  const { pathname } = new URL(record.path, 'http://upstream');
  if (pathname === '/token') return sendJson(response, 200, { token: TOKEN, expires_in: 300 });
  if (values.tokens && request.headers.authorization !== `Bearer ${TOKEN}`)
    return challenge(pathname, response);
  const [, repository, kind, reference] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(pathname) ?? [];
  const content = (kind === 'manifests' ? manifests : blobs).get(`${repository}/${reference}`);
  if (content === undefined) return sendJson(response, 404, { errors: [{ code: 'NOT_FOUND' }] });
  await send(request, response, content, record);
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  content: Content,
  record: SeenRequest,
): Promise<void> {
  const { size, mediaType, digest } = content;
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  const start = Number(from ?? 0);
  const end = to === undefined || to === '' ? size : Math.min(size, Number(to) + 1);
  response.writeHead(from === undefined ? 200 : 206, {
    'content-type': mediaType,
    'content-length': end - start,
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    ...(from === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${size}` }),
  });
  record.status = response.statusCode;
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  response.flushHeaders();
  const damage = damageTo(request, content, start, end);
  const onSent = (bytes: number): void => {
    record.bytes += bytes;
  };
  await link.send({ response, content, start, end: damage.end, corrupted: damage.corrupted, onSent });
  if (damage.after === 'break') response.write('', () => request.socket.destroySoon());
  else if (damage.after === 'end') response.end();
}

interface Damage {
  /** Where sending ends, and what comes then. */
  readonly end: number;
  readonly after: 'end' | 'break' | 'stall';
  readonly corrupted: number | undefined;
}

/** What the fault in force does to this body. */
function damageTo(request: IncomingMessage, { size }: Content, start: number, end: number): Damage {
  const none: Damage = { end, after: 'end', corrupted: undefined };
  if (!/\/blobs\//.test(request.url ?? '')) return none;
  if (fault.kind === 'corrupt') return { ...none, corrupted: Math.floor(size * fault.at) };
  if (fault.kind === 'break-every') {
    const stop = start + Math.ceil(size * fault.step);
    return stop >= end ? none : { end: stop, after: 'break', corrupted: undefined };
  }
  if (fault.kind !== 'break' && fault.kind !== 'stall') return none;
  const stop = Math.max(start, Math.floor(size * fault.at));
  if (fault.times <= 0 || stop >= end) return none;
  fault = { ...fault, times: fault.times - 1 };
  return { end: stop, after: fault.kind, corrupted: undefined };
}

async function answerControl(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method === 'GET') return sendJson(response, 200, seen);
  const given: unknown = JSON.parse((await text(request)) || '{}');
  if (request.url === '/images') {
    const { repository, sizes } = pushSchema.parse(given);
    return sendJson(response, 200, { repository, ...push(repository, generateImage(repository, sizes)) });
  }
  if (request.url === '/fault') fault = faultSchema.parse(given);
  else if (request.url === '/link') setLink(linkSchema.parse(given));
  else if (request.url === '/forget') seen = { connections: 0, requests: [] };
  else if (request.url === '/close-idle') data.closeIdleConnections();
  else if (request.url === '/stop') await stop();
  else if (request.url === '/resume')
    await new Promise<void>((resolve) => data.listen(dataPort, '127.0.0.1', resolve));
  else return sendJson(response, 404, {});
  sendJson(response, 200, {});
}

function push(repository: string, { manifest, config, layers }: GeneratedImage) {
  manifests.set(`${repository}/latest`, manifest);
  manifests.set(`${repository}/${manifest.digest}`, manifest);
  for (const blob of [config, ...layers]) blobs.set(`${repository}/${blob.digest}`, blob);
  return { manifest, config, layers };
}

function setLink(settings: LinkSettings): void {
  roundTripMs = settings.roundTripMs;
  link.bytesPerSecond = settings.bytesPerSecond;
}

/** Closes the port and every connection, so that the next one is refused. */
async function stop(): Promise<void> {
  data.closeAllConnections();
  await new Promise<void>((resolve) => data.close(() => resolve()));
}

function challenge(pathname: string, response: ServerResponse): void {
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(pathname)?.[1] ?? '';
  const realm = `http://127.0.0.1:${dataPort}/token`;
  response.setHeader(
    'www-authenticate',
    `Bearer realm="${realm}",service="bench",scope="repository:${repository}:pull"`,
  );
  sendJson(response, 401, { errors: [{ code: 'UNAUTHORIZED' }] });
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const bytes = Buffer.from(JSON.stringify(body));
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length })
    .end(bytes);
}

/** `directory`: of `server.key` and `server.pem`, for TLS. */
async function listen(listener: RequestListener, directory?: string): Promise<Server> {
  const options = { keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true };
  const server =
    directory === undefined
      ? createServer(options, listener)
      : createTlsServer({ ...options, ...(await identityIn(directory)) }, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

async function identityIn(directory: string): Promise<{ key: string; cert: string }> {
  return {
    key: await readFile(join(directory, 'server.key'), 'utf8'),
    cert: await readFile(join(directory, 'server.pem'), 'utf8'),
  };
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen');
  return address.port;
}
