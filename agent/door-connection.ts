import type { Socket } from 'node:net';
import type { Address } from '../process/server.ts';
import { type AnswerHead, readAnswerHead } from './door-answer.ts';
import { authorityOf, type DoorRequest, requestHead } from './door-request.ts';
import { openSocket } from './door-socket.ts';
import { later } from './door-timings.ts';
import { nameOf, type ReplicaTrust, tlsProblem } from './door-trust.ts';

/** A replica did not do its part. */
export class ReplicaFailure extends Error {
  override readonly name = 'ReplicaFailure';
  readonly kind: 'failed' | 'silent';

  constructor(kind: 'failed' | 'silent', message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** A connection that was kept ended before a byte of the answer came: the replica had closed it meanwhile. */
export class StaleConnection extends ReplicaFailure {}

/** An answer whose body is to be read on from its connection. */
export interface Answer {
  readonly head: AnswerHead;
  /** What came of the body together with the head; valid until the next read. */
  readonly begin: Buffer;
}

/** How a connection is to come about. */
export interface Opening {
  /** In milliseconds, until the connection stands. */
  readonly connect: number;
  /** In milliseconds, for TLS on top of that and of what the connection did not need of it. */
  readonly handshake: number;
  readonly left: AbortSignal;
  /** Without it, there is no TLS. */
  readonly trust?: ReplicaTrust | undefined;
}

/**
 * A connection to a replica, read piece by piece into one buffer: nothing is read before the last piece was
 * dealt with, which is the back-pressure.
 */
export class Connection {
  /** Since when a byte is waited for (`performance.now()`); `undefined` while none is. */
  waitingSince: number | undefined;
  readonly #replica: Address;
  readonly #socket: Socket;
  #waiting: PromiseWithResolvers<Buffer | undefined> | undefined;
  #arrived: Buffer | undefined;
  /** The buffer holds a piece that somebody is dealing with. */
  #isLent = false;
  #end: { readonly error?: Error } | undefined;
  #onGone: (() => void) | undefined;
  #isReused = false;

  private constructor(replica: Address, trust: ReplicaTrust | undefined) {
    this.#replica = replica;
    this.#socket = openSocket(replica, trust, {
      piece: (bytes) => this.#onPiece(bytes),
      end: (error) => this.#finish(error === undefined ? {} : { error }),
    });
  }

  /** @throws ReplicaFailure when it does not stand in time, or the replica's certificate is not the one that is wanted. */
  static async open(replica: Address, opening: Opening): Promise<Connection> {
    const { connect, handshake, left, trust } = opening;
    left.throwIfAborted();
    const connection = new Connection(replica, trust);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => reject(new Error('the client left'));
    const began = performance.now();
    let cancel = later(connect, () => reject(new Error(`no connection within ${connect} ms`)));
    left.addEventListener('abort', leave, { once: true });
    connection.#socket
      .once('connect', () => {
        cancel();
        if (trust === undefined) return resolve();
        const rest = Math.max(handshake, connect + handshake - (performance.now() - began));
        cancel = later(rest, () => reject(new Error(`no TLS handshake within ${Math.round(rest)} ms`)));
      })
      .once('secureConnect', resolve)
      .once('error', reject);
    try {
      await promise;
      return connection;
    } catch (error) {
      connection.destroy(new Error('not needed'));
      throw connection.#failure(trust === undefined ? error : tlsProblem(error, nameOf(replica.host, trust)));
    } finally {
      cancel();
      left.removeEventListener('abort', leave);
    }
  }

  /** Sends a request and reads until the head of the answer is there. @throws ReplicaFailure */
  async ask(request: DoorRequest): Promise<Answer> {
    this.#socket.write(requestHead(request, this.#replica), 'latin1');
    const first = await this.#first();
    let bytes = first;
    for (;;) {
      const found = this.#readHead(bytes, request);
      if (found !== undefined) {
        const begin = bytes.subarray(found.length);
        if (found.head.status === 101) throw this.#failure(new Error('it wants another protocol'));
        if (found.head.status >= 200) return { head: found.head, begin };
        bytes = begin;
      } else {
        // The buffer is about to be used again.
        const kept = Buffer.from(bytes);
        const more = await this.read();
        if (more === undefined) throw this.#failure(new Error('it closed the connection amid its answer'));
        bytes = Buffer.concat([kept, more]);
      }
    }
  }

  /**
   * The next piece, which is valid until the next read; `undefined` at the end.
   *
   * @throws ReplicaFailure when the connection broke.
   */
  async read(): Promise<Buffer | undefined> {
    this.#isLent = false;
    const arrived = this.#arrived;
    if (arrived !== undefined) {
      this.#arrived = undefined;
      this.#isLent = true;
      return arrived;
    }
    if (this.#end !== undefined) {
      if (this.#end.error !== undefined) throw this.#failure(this.#end.error);
      return undefined;
    }
    this.#waiting = Promise.withResolvers();
    this.waitingSince = performance.now();
    this.#socket.resume();
    return await this.#waiting.promise;
  }

  /** Keeps it for a later request; `onGone` is called when it ends before that. */
  keep(idle: number, onGone: () => void): void {
    this.#isLent = false;
    this.#isReused = true;
    this.#onGone = onGone;
    this.#socket.setTimeout(idle, () => this.destroy(new Error('it was not used')));
    this.#socket.resume();
  }

  /** Takes it back into use. */
  use(): void {
    this.#onGone = undefined;
    this.#socket.setTimeout(0).removeAllListeners('timeout');
  }

  destroy(error: Error): void {
    this.#finish({ error });
    this.#socket.destroy();
  }

  /** The first bytes of an answer. */
  async #first(): Promise<Buffer> {
    let cause: unknown;
    try {
      const bytes = await this.read();
      if (bytes !== undefined) return bytes;
    } catch (error) {
      if (error instanceof ReplicaFailure && error.kind === 'silent') throw error;
      cause = error;
    }
    const failure = this.#failure(cause ?? new Error('it closed the connection without an answer'));
    throw this.#isReused ? new StaleConnection('failed', failure.message, { cause: failure }) : failure;
  }

  #readHead(bytes: Buffer, { method }: DoorRequest): ReturnType<typeof readAnswerHead> {
    try {
      return readAnswerHead(bytes, method);
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #onPiece(piece: Buffer): void {
    if (this.#end !== undefined) return;
    if (this.#onGone !== undefined || this.#isLent || this.#arrived !== undefined) {
      this.destroy(new Error('it sent what nobody had asked for'));
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.waitingSince = undefined;
    if (waiting === undefined) this.#arrived = piece;
    else {
      this.#isLent = true;
      waiting.resolve(piece);
    }
  }

  #finish(end: { readonly error?: Error }): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.waitingSince = undefined;
    if (end.error === undefined) waiting?.resolve(undefined);
    else waiting?.reject(this.#failure(end.error));
    this.#onGone?.();
    this.#onGone = undefined;
  }

  #failure(cause: unknown): ReplicaFailure {
    if (cause instanceof ReplicaFailure) return cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    return new ReplicaFailure('failed', `${authorityOf(this.#replica)}: ${message}`, { cause });
  }
}
