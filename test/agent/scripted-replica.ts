import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import process from 'node:process';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createServer as createSecureServer } from 'node:tls';
import type { Identity } from '../../process/certificates.ts';

export type Script = (socket: Socket, nth: number, head: string) => unknown;

/** A replica over real sockets that answers as its script does. Its `/livez` is not counted as a request. */
export interface ScriptedReplica {
  readonly host: string;
  readonly port: number;
  /** The heads of the requests. */
  readonly requests: readonly string[];
  /** Connections on which a request came. */
  readonly connections: number;
  /** Connections that are open. */
  readonly open: number;
  readonly looks: number;
  livez: 'ok' | 'none';
  onLook: (isBegin: boolean) => void;
  /** Of one that speaks TLS: answers with another certificate from the next connection on. */
  renew(identity: Identity): void;
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** @param identity what it speaks TLS with; without one, it does not. */
export async function startReplica(
  t: TestContext,
  script: Script,
  identity?: Identity,
): Promise<ScriptedReplica> {
  const sockets = new Set<Socket>();
  const used = new WeakSet<Socket>();
  const requests: string[] = [];
  const onSocket = (socket: Socket): void => {
    sockets.add(socket);
    const below = connections.get(socket.remotePort);
    if (below !== undefined) carriers.set(socket, below);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\r\n\r\n'); end !== -1; end = text.indexOf('\r\n\r\n')) {
        const head = text.slice(0, end + 4);
        text = text.slice(end + 4);
        if (head.startsWith('GET /livez ')) onLook(socket);
        else {
          if (!used.has(socket)) state.connections += 1;
          used.add(socket);
          void script(socket, requests.push(head) - 1, head);
        }
      }
    });
  };
  const connections = new Map<number | undefined, Socket>();
  const secure = identity && createSecureServer(identity, onSocket);
  secure?.on('connection', (socket: Socket) => {
    const { remotePort } = socket;
    connections.set(remotePort, socket);
    socket.on('error', () => undefined).on('close', () => connections.delete(remotePort));
  });
  const server = secure ?? createServer(onSocket);
  const listen = async (port: number): Promise<void> => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const stop = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of [...sockets, ...connections.values()]) socket.destroy();
    await closed;
  };
  await listen(0);
  t.after(stop);
  const port = portOf(server);
  const state = {
    host: '127.0.0.1',
    port,
    requests,
    connections: 0,
    looks: 0,
    livez: 'ok' as 'ok' | 'none',
    onLook: (() => undefined) as (isBegin: boolean) => void,
    renew: (renewed: Identity) => secure?.setSecureContext(renewed),
    stop,
    start: () => listen(port),
    get open() {
      return sockets.size;
    },
  };
  const onLook = (socket: Socket): void => {
    state.looks += 1;
    state.onLook(true);
    socket.on('close', () => state.onLook(false));
    if (state.livez === 'ok') socket.write(ok('ok'));
  };
  return state;
}

/** What carries the TLS of a socket. */
const carriers = new WeakMap<Socket, Socket>();

/** Breaks a connection off, so that the other end is told of a reset. */
export function reset(socket: Socket): void {
  (carriers.get(socket) ?? socket).resetAndDestroy();
}

/** A port to which no connection comes about: its queue is full and nobody takes from it. */
export async function startBlackHole(t: TestContext): Promise<number> {
  const program = `const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const announced = Promise.withResolvers<string>();
  createInterface({ input: child.stdout }).once('line', announced.resolve);
  const port = Number(await announced.promise);
  child.kill('SIGSTOP');
  for (let tries = 0; tries < 20; tries++) {
    const filler = connect(port, '127.0.0.1');
    filler.on('error', () => undefined);
    t.after(() => filler.destroy());
    const stands = await Promise.race([once(filler, 'connect').then(() => true), pause(150, false)]);
    if (!stands) return port;
  }
  throw new Error('the queue does not fill');
}

export function ok(body: string): string {
  return `HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

export function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen');
  return address.port;
}

/** Waits for an effect that no event announces. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${String(holds)}`);
    await pause(5);
  }
}
