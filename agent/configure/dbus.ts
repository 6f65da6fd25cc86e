import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import process from 'node:process';
import * as z from 'zod';
import { messageOf } from '../../process/file-problem.ts';
import { type DbusMessage, type DbusValue, readMessage, writeMessage } from './dbus-message.ts';

/** A method of an object that some program has on the bus. */
export interface DbusCall {
  readonly destination: string;
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  readonly signature?: string;
  readonly body?: readonly DbusValue[];
}

/** An answer that says why not. */
export class DbusError extends Error {
  /** `org.freedesktop.DBus.Error.AccessDenied` */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message === '' ? code : message);
    this.name = 'DbusError';
    this.code = code;
  }
}

const ANSWER_MS = 10_000;
const chunkSchema = z.tuple([z.instanceof(Buffer)]);

/**
 * Has the use of a bus of D-Bus that listens at a socket, for a while. Calls are all there is: no signals, no objects
 * of our own.
 *
 * @throws Error when nothing there answers as a bus does.
 */
export async function withBus<T>(socketPath: string, use: (bus: Dbus) => Promise<T>): Promise<T> {
  const socket = connect(socketPath);
  // Whoever waits is told; at other times the next call is.
  socket.on('error', () => undefined);
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(ANSWER_MS) });
    await authenticate(socket);
    const bus = new Dbus(socket);
    await bus.call({ ...BUS, member: 'Hello' });
    return await use(bus);
  } finally {
    socket.destroy();
  }
}

const BUS = {
  destination: 'org.freedesktop.DBus',
  path: '/org/freedesktop/DBus',
  interface: 'org.freedesktop.DBus',
} as const;

/** As the user that the kernel says we are (D-Bus specification, "Authentication Protocol", EXTERNAL). */
async function authenticate(socket: Socket): Promise<void> {
  const user = Buffer.from(String(process.getuid?.() ?? 0)).toString('hex');
  socket.write(`\0AUTH EXTERNAL ${user}\r\n`);
  let answer = '';
  while (!answer.endsWith('\r\n')) {
    const data = await once(socket, 'data', { signal: AbortSignal.timeout(ANSWER_MS) });
    answer += String(chunkSchema.parse(data)[0]);
  }
  if (!answer.startsWith('OK '))
    throw new Error(`the bus does not let us in: ${answer.trim().slice(0, 100)}`);
  socket.write('BEGIN\r\n');
}

export class Dbus {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, PromiseWithResolvers<DbusMessage>>();
  #bytes = Buffer.alloc(0);
  #serial = 0;
  #end: Error | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the bus closed the connection')));
  }

  /**
   * The values that a method returns.
   *
   * @throws DbusError when it is refused.
   * @throws Error when there is no answer.
   */
  async call({ body = [], ...call }: DbusCall): Promise<readonly DbusValue[]> {
    if (this.#end !== undefined) throw this.#end;
    this.#serial += 1;
    const serial = this.#serial;
    const waiting = Promise.withResolvers<DbusMessage>();
    this.#waiting.set(serial, waiting);
    const timer = setTimeout(
      () => waiting.reject(new Error(`${call.destination} does not answer ${call.member}`)),
      ANSWER_MS,
    );
    try {
      this.#socket.write(writeMessage({ type: 'call', serial, ...call, body }));
      const answer = await waiting.promise;
      const [first = ''] = answer.body ?? [];
      if (answer.type === 'error')
        throw new DbusError(answer.errorName ?? 'an error', typeof first === 'string' ? first : '');
      return answer.body ?? [];
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(serial);
    }
  }

  #take(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    try {
      for (let found = readMessage(this.#bytes); found !== undefined; found = readMessage(this.#bytes)) {
        this.#bytes = this.#bytes.subarray(found.length);
        this.#waiting.get(found.message.replySerial ?? 0)?.resolve(found.message);
      }
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(messageOf(error)));
      this.#socket.destroy();
    }
  }

  #fail(error: Error): void {
    this.#end ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#end);
  }
}
