import type { ServerResponse } from 'node:http';
import { errorBody } from '../oci/errors.ts';
import { messageOf } from '../process/file-problem.ts';
import { bodyOf } from './door-body.ts';
import { type Answer, type Connection, ReplicaFailure, StaleConnection } from './door-connection.ts';
import type { Replica } from './door-replica.ts';
import type { DoorRequest } from './door-request.ts';

/** What became of a request. `left`: the client did not wait for the end. */
/** `declined`: the replica answered that it has nothing to give (4xx, 5xx), and containerd goes on to the next host. */
export type Outcome = 'forwarded' | 'declined' | 'no_replica' | 'failed' | 'silent' | 'refused' | 'left';

export interface ForwardOptions {
  readonly request: DoorRequest;
  readonly response: ServerResponse;
  /** Whom to ask: the first that fails gives way to one of the others. */
  readonly replicas: readonly Replica[];
  /** Why there is none to ask, where there is none. */
  readonly nobody: string;
  /** For which the client may take no byte, in milliseconds. */
  readonly clientPatience: number;
  readonly onBytes: (count: number) => void;
}

/** Hands a request to a replica and its answer to the client; never rejects. */
export async function forward(options: ForwardOptions): Promise<Outcome> {
  const { response } = options;
  const gone = new AbortController();
  const leave = (): void => gone.abort(new Error('the client left'));
  response.once('close', leave);
  if (response.destroyed) leave();
  try {
    return await new Forwarding(options, gone.signal).run();
  } finally {
    response.off('close', leave);
  }
}

/** Answers without a replica; a client that reads 503 goes on to its next host. */
export function answerUnavailable(response: ServerResponse, reason: string): void {
  const body = errorBody('UNAVAILABLE', `the mirror on this node: ${reason}`);
  response.writeHead(503, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

class Forwarding {
  readonly #options: ForwardOptions;
  readonly #left: AbortSignal;

  constructor(options: ForwardOptions, left: AbortSignal) {
    this.#options = options;
    this.#left = left;
  }

  async run(): Promise<Outcome> {
    const { response, replicas, nobody } = this.#options;
    let [replica, ...others] = replicas;
    let outcome: Outcome = 'no_replica';
    let reason = nobody;
    while (replica !== undefined) {
      try {
        await this.#through(replica);
        return response.statusCode < 400 ? 'forwarded' : 'declined';
      } catch (error) {
        outcome = error instanceof ReplicaFailure ? error.kind : 'failed';
        reason = messageOf(error);
      }
      if (this.#left.aborted) return 'left';
      if (response.headersSent) {
        // Cut short, the client asks for the rest: of this host, and then of the next.
        response.destroy();
        return outcome;
      }
      replica = await firstAlive(others);
      others = others.filter((other) => other !== replica);
      if (this.#left.aborted) return 'left';
    }
    answerUnavailable(response, reason);
    return outcome;
  }

  /** @throws Error when the replica failed, or the client left. */
  async #through(replica: Replica): Promise<void> {
    const kept = replica.kept();
    if (kept !== undefined) {
      try {
        await this.#over(kept, replica);
        return;
      } catch (error) {
        if (!(error instanceof StaleConnection) || this.#left.aborted) throw error;
      }
    }
    const fresh = await this.#orPutAside(replica, replica.connect(this.#left));
    await this.#over(fresh, replica);
  }

  async #over(connection: Connection, replica: Replica): Promise<void> {
    const leave = (): void => connection.destroy(new Error('the client left'));
    this.#left.addEventListener('abort', leave, { once: true });
    const endWatch = replica.watch(connection);
    try {
      const answer = await this.#orPutAside(replica, connection.ask(this.#options.request));
      await this.#relay(answer, connection, replica);
    } catch (error) {
      connection.destroy(new Error('its answer was given up'));
      throw error;
    } finally {
      endWatch();
      this.#left.removeEventListener('abort', leave);
    }
  }

  async #orPutAside<Result>(replica: Replica, attempt: Promise<Result>): Promise<Result> {
    try {
      return await attempt;
    } catch (error) {
      if (!this.#left.aborted && !(error instanceof StaleConnection)) replica.putAside(messageOf(error));
      throw error;
    }
  }

  async #relay({ head, begin }: Answer, connection: Connection, replica: Replica): Promise<void> {
    const { response, onBytes } = this.#options;
    if (REPEATED.includes(head.status))
      throw new ReplicaFailure('failed', `the registry answered ${head.status}`);
    response.writeHead(head.status, head.message, [...head.headers]);
    // The client may be counting the time until it sees the head.
    if (begin.length === 0) response.flushHeaders();
    const body = bodyOf(head.framing);
    try {
      for (let piece = begin; ; ) {
        for (const part of body.take(piece)) {
          await this.#write(part);
          onBytes(part.length);
        }
        if (body.done) break;
        const next = await connection.read();
        if (next === undefined) {
          body.end();
          break;
        }
        piece = next;
      }
    } catch (error) {
      // It cuts an answer short when its upstream did. Whether it is ill itself, a look tells.
      if (!this.#left.aborted) void replica.look();
      throw error;
    }
    response.end();
    if (head.keepAlive && !body.excess) replica.keep(connection);
    else connection.destroy(new Error('it cannot be used again'));
  }

  /** Resolves when the client's socket has taken the bytes, so that their buffer can be used again. */
  async #write(part: Buffer): Promise<void> {
    this.#left.throwIfAborted();
    const { response, clientPatience } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onLeft = (): void => reject(this.#left.reason);
    this.#left.addEventListener('abort', onLeft, { once: true });
    const timer = setTimeout(() => response.destroy(), clientPatience);
    response.write(part, (error) => (error ? reject(error) : resolve()));
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#left.removeEventListener('abort', onLeft);
    }
  }
}

/** containerd repeats these five times at the same host without a pause, before it goes on to the next. */
const REPEATED = [408, 429];

/** The first of them to show life: a second replica is not taken on trust, as all of them may be out of reach. */
async function firstAlive(replicas: readonly Replica[]): Promise<Replica | undefined> {
  const { promise, resolve } = Promise.withResolvers<Replica | undefined>();
  const looks = replicas.map(async (replica) => {
    if (await replica.look()) resolve(replica);
  });
  void Promise.all(looks).then(() => resolve(undefined));
  return await promise;
}
