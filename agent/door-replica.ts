import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '../process/file-problem.ts';
import type { Logger } from '../process/log.ts';
import type { Address } from '../process/server.ts';
import { Connection, ReplicaFailure } from './door-connection.ts';
import { authorityOf, type DoorRequest } from './door-request.ts';
import { type DoorTimings, later } from './door-timings.ts';
import type { ReplicaTrust } from './door-trust.ts';

/** Where a replica of the registry is reached, and its Pod's name for people. */
export interface ReplicaAddress extends Address {
  readonly name?: string;
}

export interface ReplicaOptions {
  readonly timings: DoorTimings;
  /** By which replicas are known at the moment, where they speak TLS. */
  readonly trust?: (() => ReplicaTrust) | undefined;
  readonly log: Logger;
}

/** Connections that are kept for later requests: as many as one pull uses, since each has a buffer. */
const MAX_KEPT = 4;

/**
 * One replica as this node sees it. At its first failure it is put aside, so that the next requests of the same
 * pull do not pay for it again, and it is back once its `/livez` answers.
 */
export class Replica {
  readonly address: ReplicaAddress;
  readonly #timings: DoorTimings;
  readonly #trust: (() => ReplicaTrust) | undefined;
  readonly #log: Logger;
  readonly #kept = new Set<Connection>();
  /** Connections that are silent; what the next look finds decides about all of them. */
  readonly #suspects = new Set<Connection>();
  #aside: string | undefined;
  #looking: Promise<boolean> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isDeciding = false;
  #isClosed = false;

  constructor(address: ReplicaAddress, { timings, trust, log }: ReplicaOptions) {
    this.address = address;
    this.#timings = timings;
    this.#trust = trust;
    this.#log = log.child({ replica: authorityOf(address), ...(address.name ? { name: address.name } : {}) });
  }

  /** Why it is asked nothing at the moment; `undefined` while it is. */
  get aside(): string | undefined {
    return this.#aside;
  }

  /** A connection that was kept, the youngest first. */
  kept(): Connection | undefined {
    const connection = [...this.#kept].at(-1);
    if (connection === undefined) return undefined;
    this.#kept.delete(connection);
    connection.use();
    return connection;
  }

  /** @throws ReplicaFailure when there is none in time. */
  async connect(left: AbortSignal): Promise<Connection> {
    return await Connection.open(this.address, { ...this.#timings, left, trust: this.#trust?.() });
  }

  /** Keeps a connection whose answer was read to its end. */
  keep(connection: Connection): void {
    if (this.#isClosed || this.#aside !== undefined || this.#kept.size >= MAX_KEPT) {
      connection.destroy(new Error('it is not needed'));
      return;
    }
    this.#kept.add(connection);
    connection.keep(this.#timings.idle, () => this.#kept.delete(connection));
  }

  /** Asks it nothing until its `/livez` answers. */
  putAside(reason: string): void {
    if (this.#isClosed) return;
    if (this.#aside === undefined) this.#log.warn({ reason }, 'a replica of the registry is put aside');
    this.#aside = reason;
    this.#dropKept();
    this.#timer ??= setTimeout(() => this.#retry(), this.#timings.retry).unref();
  }

  /** Whether its `/livez` answers, on a connection of its own; several that want to know share one look. */
  async look(): Promise<boolean> {
    this.#looking ??= this.#look();
    return await this.#looking;
  }

  /**
   * Ends the connection when it is silent and the replica gives no sign of life: one that does may be waiting
   * for its own upstream, and is waited for as long as it takes.
   *
   * @returns a function that ends the watch.
   */
  watch(connection: Connection): () => void {
    const { silence } = this.#timings;
    let cancel: () => void;
    const check = (): void => {
      const quiet = quietFor(connection);
      if (quiet >= silence) this.#suspect(connection);
      else this.#suspects.delete(connection);
      cancel = later(quiet >= silence ? silence : silence - quiet, check);
    };
    cancel = later(silence, check);
    return () => {
      cancel();
      this.#suspects.delete(connection);
    };
  }

  /** Answers in progress go on. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#dropKept();
  }

  #dropKept(): void {
    for (const connection of this.#kept) connection.destroy(new Error('it is not needed'));
  }

  #retry(): void {
    this.#timer = undefined;
    void this.look();
  }

  async #look(): Promise<boolean> {
    const problem = await this.#livezProblem(this.#timings.look);
    this.#looking = undefined;
    if (problem !== undefined) this.putAside(problem);
    else if (this.#aside !== undefined) {
      this.#aside = undefined;
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#log.info('a replica of the registry is back');
    }
    return problem === undefined;
  }

  /** What is wrong with its `/livez`; `undefined` when that answers within so many milliseconds. */
  async #livezProblem(budget: number): Promise<string | undefined> {
    const over = new AbortController();
    const cancel = later(budget, () => over.abort());
    const opening = { connect: budget, handshake: budget, left: over.signal, trust: this.#trust?.() };
    let connection: Connection | undefined;
    const end = (): void => connection?.destroy(new Error('it is not needed'));
    over.signal.addEventListener('abort', end);
    try {
      connection = await Connection.open(this.address, opening);
      const { status } = (await connection.ask(LIVEZ)).head;
      return status === 200 ? undefined : `its /livez answered ${status}`;
    } catch (error) {
      return over.signal.aborted
        ? `its /livez did not answer within ${budget} ms`
        : `its /livez failed: ${messageOf(error)}`;
    } finally {
      cancel();
      end();
    }
  }

  #suspect(connection: Connection): void {
    this.#suspects.add(connection);
    if (!this.#isDeciding) void this.#decide();
  }

  /** Looks again and again while anybody is silent: however many are, the replica is asked no more often. */
  async #decide(): Promise<void> {
    this.#isDeciding = true;
    while (this.#suspects.size > 0) {
      if (await this.look()) await pause(this.#timings.lookAgain, undefined, { ref: false });
      else this.#endSilent();
    }
    this.#isDeciding = false;
  }

  #endSilent(): void {
    const problem = `${authorityOf(this.address)} is silent: ${this.#aside ?? 'no sign of life'}`;
    for (const connection of this.#suspects)
      if (quietFor(connection) >= this.#timings.silence)
        connection.destroy(new ReplicaFailure('silent', problem));
    // Who is silent again, after a byte that came meanwhile, is suspected again.
    this.#suspects.clear();
  }
}

/** For how many milliseconds it has been owing a byte. */
function quietFor({ waitingSince }: Connection): number {
  return waitingSince === undefined ? 0 : performance.now() - waitingSince;
}

const LIVEZ: DoorRequest = { method: 'GET', target: '/livez', headers: [], repository: '' };
