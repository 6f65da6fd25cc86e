import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  request as send,
} from 'node:http';
import { connect, createServer as createTcpServer, type Socket, type Server as TcpServer } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { TLSSocket } from 'node:tls';

/** `HOST:PORT` for what a client asked for, so that a name needs no resolver; without it, the name is dialled. */
export type Dial = (target: string) => string;

export interface ProxyOptions {
  /** `user:password` that clients must show. */
  readonly login?: string;
  readonly dial?: Dial;
  /** Answers every request for a connection with this HTTP status, or with this SOCKS reply. */
  readonly refusal?: number;
}

/** A proxy on a port of its own. */
export interface TestProxy {
  readonly scheme: 'http' | 'socks5';
  readonly host: string;
  readonly url: string;
  /** What was asked for, in order: `CONNECT host:port`, `GET http://…`, or `SOCKS host:port`. */
  readonly seen: readonly string[];
  /** What clients showed, in order; `undefined` for nothing. */
  readonly logins: readonly (string | undefined)[];
  close(): Promise<void>;
}

/** An HTTP proxy: CONNECT (RFC 9110, section 9.3.6) and requests in absolute form (RFC 9112, section 3.2.2). */
export async function startHttpProxy(options: ProxyOptions = {}): Promise<TestProxy> {
  const seen: string[] = [];
  const logins: (string | undefined)[] = [];
  const refusal = (request: IncomingMessage): number | undefined => {
    const login = basicLogin(request.headers['proxy-authorization']);
    logins.push(login);
    if (options.login !== undefined && login !== options.login) return 407;
    return options.refusal;
  };
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    const status = refusal(request);
    if (status === undefined) forward(request, response, options.dial);
    else response.writeHead(status, { 'content-type': 'text/plain' }).end('the proxy refuses');
  });
  server.on('connect', (request: IncomingMessage, client: Socket, head: Buffer) => {
    seen.push(`CONNECT ${request.url}`);
    client.on('error', () => client.destroy());
    const status = refusal(request);
    if (status !== undefined) {
      client.end(`HTTP/1.1 ${status} Refused\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    const onward = dialled(request.url ?? '', options.dial, () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      onward.write(head);
      join(client, onward);
    });
    onward.on('error', () => client.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n'));
  });
  return started('http', server, seen, logins);
}

/** A SOCKS5 proxy (RFC 1928), with user and password (RFC 1929) when it wants a login. */
export async function startSocksProxy(options: ProxyOptions = {}): Promise<TestProxy> {
  const seen: string[] = [];
  const logins: (string | undefined)[] = [];
  const server = createTcpServer((client) => {
    client.on('error', () => client.destroy());
    serveSocks(client, options, seen, logins).catch(() => client.destroy());
  });
  return started('socks5', server, seen, logins);
}

/** Takes connections and never says a word. */
export async function startSilentProxy(scheme: 'http' | 'socks5'): Promise<TestProxy> {
  const seen: string[] = [];
  const server = createTcpServer((client) => {
    seen.push('connection');
    client.on('error', () => client.destroy()).resume();
  });
  return started(scheme, server, seen, []);
}

/** Lets go of every connection as soon as the client has said something. */
export async function startRudeProxy(scheme: 'http' | 'socks5'): Promise<TestProxy> {
  const seen: string[] = [];
  const server = createTcpServer((client) => {
    seen.push('connection');
    client.on('error', () => client.destroy()).once('data', () => client.destroy());
  });
  return started(scheme, server, seen, []);
}

/** TLS in front of a plain server, as an ingress is. */
export async function startTlsFront(
  target: string,
  identity: { readonly key: string; readonly cert: string },
): Promise<{ readonly host: string; close(): Promise<void> }> {
  const server = createTcpServer((client) => {
    const secure = new TLSSocket(client, { isServer: true, ...identity });
    secure.on('error', () => secure.destroy());
    const onward = dialled(target, undefined, () => join(secure, onward));
    onward.on('error', () => secure.destroy());
  });
  return started('http', server, [], []);
}

async function started(
  scheme: 'http' | 'socks5',
  server: Server | TcpServer,
  seen: readonly string[],
  logins: readonly (string | undefined)[],
): Promise<TestProxy> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy does not listen');
  const host = `127.0.0.1:${address.port}`;
  return {
    scheme,
    host,
    url: `${scheme}://${host}`,
    seen,
    logins,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function forward(request: IncomingMessage, response: ServerResponse, dial: Dial | undefined): void {
  const url = new URL(request.url ?? '');
  const [host, port] = splitTarget(dial?.(url.host) ?? url.host);
  const { 'proxy-authorization': _, ...headers } = request.headers;
  const { method, pathname, search } = { method: request.method, pathname: url.pathname, search: url.search };
  const onward = send({ host, port, method, path: `${pathname}${search}`, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    pipeline(answer, response).catch(() => response.destroy());
  });
  onward.on('error', () => response.writeHead(502).end());
  onward.end();
}

async function serveSocks(
  client: Socket,
  { login, dial, refusal }: ProxyOptions,
  seen: string[],
  logins: (string | undefined)[],
): Promise<void> {
  const read = reader(client);
  const [, methods = 0] = await read(2);
  const offered = await read(methods);
  const method = login === undefined ? 0x00 : 0x02;
  if (!offered.includes(method)) {
    client.end(Buffer.from([0x05, 0xff]));
    return;
  }
  client.write(Buffer.from([0x05, method]));
  if (login === undefined) logins.push(undefined);
  else {
    const [, userLength = 0] = await read(2);
    const user = await read(userLength);
    const [passwordLength = 0] = await read(1);
    const shown = `${user.toString()}:${(await read(passwordLength)).toString()}`;
    logins.push(shown);
    client.write(Buffer.from([0x01, shown === login ? 0x00 : 0x01]));
    if (shown !== login) {
      client.end();
      return;
    }
  }
  const [, , , kind] = await read(4);
  const host = await readSocksHost(kind, read);
  const target = `${host}:${(await read(2)).readUInt16BE(0)}`;
  seen.push(`SOCKS ${target}`);
  if (refusal !== undefined) {
    client.end(socksReply(refusal));
    return;
  }
  const onward = dialled(target, dial, () => {
    client.write(socksReply(0x00));
    read.end();
    join(client, onward);
  });
  onward.on('error', () => client.end(socksReply(0x05)));
}

function socksReply(code: number): Buffer {
  return Buffer.from([0x05, code, 0x00, 0x01, 0, 0, 0, 0, 0, 0]);
}

async function readSocksHost(kind: number | undefined, read: Read): Promise<string> {
  if (kind === 0x01) return [...(await read(4))].join('.');
  if (kind === 0x03) {
    const [length = 0] = await read(1);
    return (await read(length)).toString();
  }
  const groups = await read(16);
  return `[${Array.from({ length: 8 }, (_, at) => groups.readUInt16BE(at * 2).toString(16)).join(':')}]`;
}

interface Read {
  (length: number): Promise<Buffer>;
  /** Leaves what comes from now on to others. */
  end(): void;
}

function reader(socket: Socket): Read {
  let held = Buffer.alloc(0);
  let wake = Promise.withResolvers<void>();
  const onData = (chunk: Buffer): void => {
    held = Buffer.concat([held, chunk]);
    wake.resolve();
  };
  socket.on('data', onData).once('close', () => wake.reject(new Error('the client left')));
  wake.promise.catch(() => undefined);
  const read = async (length: number): Promise<Buffer> => {
    while (held.length < length) {
      await wake.promise;
      wake = Promise.withResolvers();
      wake.promise.catch(() => undefined);
    }
    const bytes = held.subarray(0, length);
    held = held.subarray(length);
    return bytes;
  };
  return Object.assign(read, { end: () => void socket.off('data', onData) });
}

function dialled(target: string, dial: Dial | undefined, connected: () => void): Socket {
  const [host, port] = splitTarget(dial?.(target) ?? target);
  return connect({ host, port }, connected);
}

function join(one: Socket, other: Socket): void {
  // Either side's end, in whatever way, is the other's.
  pipeline(one, other).catch(() => other.destroy());
  pipeline(other, one).catch(() => one.destroy());
}

function splitTarget(target: string): [host: string, port: number] {
  const url = new URL(`http://${target}`);
  return [url.hostname.replace(/^\[|\]$/g, ''), Number(url.port === '' ? 80 : url.port)];
}

function basicLogin(header: string | undefined): string | undefined {
  const encoded = /^Basic (.+)$/.exec(header ?? '')?.[1];
  return encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString();
}
