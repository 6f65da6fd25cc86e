import { connect, type Socket } from 'node:net';

export interface Ask {
  readonly method: 'GET' | 'HEAD';
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sees the body piece by piece; a piece is good until it returns. `false`: the client leaves. */
  readonly onBody?: (piece: Buffer) => boolean;
  /** The client takes no more than this, and leaves the rest to wait where it is; at once if nothing is said. */
  readonly bytesPerSecond?: number | undefined;
}

export interface Answer {
  /** 0: the connection ended before an answer. */
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  /** Of the body. */
  readonly bytes: number;
  /** Whether the body came to its end. */
  readonly whole: boolean;
  /** `performance.now()` at the first byte of the body, or of the answer where it has none. */
  readonly firstByteAt: number;
  readonly endedAt: number;
}

const BUFFER_BYTES = 256 * 1024;
const EMPTY = Buffer.alloc(0);
const END_OF_HEAD = '\r\n\r\n';

/** The answer that is being read. */
interface Reading {
  readonly ask: Ask;
  readonly resolve: (answer: Answer) => void;
  head: Buffer;
  status: number;
  headers: ReadonlyMap<string, string>;
  /** `undefined`: the head is not there yet. */
  size: number | undefined;
  bytes: number;
  firstByteAt: number;
}

/**
 * One HTTP/1.1 connection that is kept alive, read into one buffer: a client that costs as little as it can, so
 * that what is measured is the server. It knows bodies with a `Content-Length` only.
 */
export class HttpConnection {
  readonly #socket: Socket;
  readonly #host: string;
  #reading: Reading | undefined;
  #isOpen = true;

  private constructor(origin: string, onConnect: () => void, onRefused: (error: Error) => void) {
    const { hostname, port, host } = new URL(origin);
    this.#host = host;
    this.#socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      onread: {
        buffer: Buffer.allocUnsafe(BUFFER_BYTES),
        callback: (length, buffer) => {
          this.#take(Buffer.from(buffer.buffer, buffer.byteOffset, length));
          return this.#rest(length);
        },
      },
    });
    this.#socket.once('connect', onConnect);
    this.#socket.on('error', (error) => onRefused(error));
    this.#socket.once('close', () => {
      this.#isOpen = false;
      this.#end(false);
    });
  }

  static async open(origin: string): Promise<HttpConnection> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const connection = new HttpConnection(origin, resolve, reject);
    await promise;
    return connection;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Asks, and resolves when the answer has come to its end, or the connection has. */
  async request(ask: Ask): Promise<Answer> {
    if (this.#reading !== undefined) throw new Error('one request at a time');
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#reading = {
      ask,
      resolve,
      head: EMPTY,
      status: 0,
      headers: new Map(),
      size: undefined,
      bytes: 0,
      firstByteAt: Number.NaN,
    };
    const headers = Object.entries(ask.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
    this.#socket.write(
      `${ask.method} ${ask.path} HTTP/1.1\r\nhost: ${this.#host}\r\n${headers.join('')}\r\n`,
    );
    if (!this.#isOpen) this.#end(false);
    return await promise;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(piece: Buffer): void {
    const reading = this.#reading;
    if (reading === undefined) return;
    const body = reading.size === undefined ? takeHead(reading, piece) : piece;
    if (reading.size === undefined) return;
    if (body.length > 0) {
      if (reading.bytes === 0) reading.firstByteAt = performance.now();
      reading.bytes += body.length;
      if (reading.ask.onBody?.(body) === false) {
        this.#isOpen = false;
        this.#socket.destroy();
        this.#end(false);
        return;
      }
    }
    if (reading.bytes >= reading.size) this.#end(true);
  }

  /** Reads nothing for as long as a slow client takes for so many bytes. @returns whether to go on at once. */
  #rest(bytes: number): boolean {
    const rate = this.#reading?.ask.bytesPerSecond;
    if (rate === undefined) return true;
    setTimeout(() => this.#socket.resume(), (bytes * 1000) / rate);
    return false;
  }

  #end(whole: boolean): void {
    const reading = this.#reading;
    if (reading === undefined) return;
    this.#reading = undefined;
    const { status, headers, bytes, firstByteAt, resolve } = reading;
    const endedAt = performance.now();
    resolve({
      status,
      headers,
      bytes,
      whole,
      firstByteAt: Number.isNaN(firstByteAt) ? endedAt : firstByteAt,
      endedAt,
    });
  }
}

/** @returns what of the piece belongs to the body. */
function takeHead(reading: Reading, piece: Buffer): Buffer {
  const all = reading.head.length === 0 ? piece : Buffer.concat([reading.head, piece]);
  const end = all.indexOf(END_OF_HEAD);
  if (end === -1) {
    reading.head = Buffer.from(all);
    return EMPTY;
  }
  const [first = '', ...lines] = all.toString('latin1', 0, end).split('\r\n');
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  reading.status = Number(first.split(' ')[1]);
  reading.headers = headers;
  reading.size = reading.ask.method === 'HEAD' ? 0 : Number(headers.get('content-length') ?? Number.NaN);
  if (Number.isNaN(reading.size))
    throw new Error(`an answer without a length:\n${all.toString('latin1', 0, end)}`);
  return all.subarray(end + END_OF_HEAD.length);
}
