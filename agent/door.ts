import type { IncomingMessage, ServerResponse } from 'node:http';
import { CANARY_HOST } from '../oci/canary.ts';
import { errorBody } from '../oci/errors.ts';
import { codeOf, messageOf } from '../process/file-problem.ts';
import type { Logger } from '../process/log.ts';
import { Counter, Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { type Address, type RunningServer, serve, urlOf } from '../process/server.ts';
import { answerUnavailable, forward, type Outcome } from './door-forward.ts';
import { inOrder } from './door-order.ts';
import { Replica, type ReplicaAddress, type ReplicaOptions } from './door-replica.ts';
import { authorityOf, type Refusal, readRequest } from './door-request.ts';
import { DOOR_TIMINGS, type DoorTimings } from './door-timings.ts';
import type { ReplicaTrust } from './door-trust.ts';

export type { ReplicaAddress } from './door-replica.ts';

export interface DoorOptions {
  readonly address: Address;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** By which replicas are known at the moment, where they speak TLS; asked for with each connection. */
  readonly trust?: (() => ReplicaTrust) | undefined;
  readonly timings?: Partial<DoorTimings>;
}

export interface ReplicaState extends ReplicaAddress {
  readonly state: 'ready' | 'aside';
  /** Why it is put aside. */
  readonly reason?: string;
}

/**
 * Pulls of one node that are answered at the same time. Each holds a buffer of half a megabyte, and all of them
 * have to fit into an agent that may take 256 MiB.
 */
const MAX_REQUESTS = 128;

/**
 * The node's own way to the registry: containerd on this node asks it, and it hands the request on to a ready
 * replica. Whatever ails the registry, the answer is there in less than a second, so that containerd goes on to
 * the upstream; without the door, a registry that hangs costs a pull a minute and a half.
 */
export class Door {
  /** As the node's containerd reaches it. */
  readonly url: string;
  readonly #server: RunningServer;
  readonly #forwarder: Forwarder;

  private constructor(server: RunningServer, forwarder: Forwarder) {
    this.#server = server;
    this.#forwarder = forwarder;
    this.url = urlOf(server.address);
  }

  /** Listens. @throws Error that names the port and what to change, when it cannot. */
  static async open(options: DoorOptions): Promise<Door> {
    const { address, metrics, log } = options;
    const forwarder = new Forwarder(options);
    try {
      const server = await serve(
        (request, response) => void forwarder.answer(request, response),
        address,
        log,
      );
      // Only now: who was refused the port tries again with the same.
      forwarder.measure(metrics);
      return new Door(server, forwarder);
    } catch (error) {
      throw listenProblem(address, error);
    }
  }

  /** Whom to ask from now on. Who is named again keeps its connections; answers of the others go on. */
  setReplicas(addresses: readonly ReplicaAddress[]): void {
    this.#forwarder.setReplicas(addresses);
  }

  state(): readonly ReplicaState[] {
    return this.#forwarder.state();
  }

  /** Takes no new requests, and lets answers finish for a while. */
  async close(): Promise<void> {
    await this.#server.drain();
    this.#forwarder.setReplicas([]);
  }
}

class Forwarder {
  readonly #options: ReplicaOptions;
  readonly #metrics = doorMetrics(() => this.state());
  #replicas: ReadonlyMap<string, Replica> = new Map();
  #open = 0;

  constructor({ log, trust, timings }: Pick<DoorOptions, 'log' | 'trust' | 'timings'>) {
    this.#options = { log, trust, timings: { ...DOOR_TIMINGS, ...timings } };
  }

  /** Puts what is measured among the program's metrics. */
  measure(metrics: Metrics): void {
    const { requests, bytes, replicas } = this.#metrics;
    metrics.registerMetric(requests);
    metrics.registerMetric(bytes);
    metrics.registerMetric(replicas);
  }

  setReplicas(addresses: readonly ReplicaAddress[]): void {
    const before = this.#replicas;
    this.#replicas = new Map(
      addresses.map((address) => {
        const authority = authorityOf(address);
        return [authority, before.get(authority) ?? new Replica(address, this.#options)];
      }),
    );
    for (const [authority, replica] of before) if (!this.#replicas.has(authority)) replica.close();
  }

  state(): readonly ReplicaState[] {
    return [...this.#replicas.values()].map(({ address, aside }) =>
      aside === undefined ? { ...address, state: 'ready' } : { ...address, state: 'aside', reason: aside },
    );
  }

  /** Never rejects. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const began = performance.now();
    this.#open += 1;
    const outcome = await this.#answer(request, response);
    this.#open -= 1;
    this.#metrics.requests.inc({ outcome: isForCanary(request.url) ? CANARY : outcome });
    const { method, url } = request;
    const ms = Math.round(performance.now() - began);
    this.#options.log.debug({ method, url, status: response.statusCode, outcome, ms }, 'answered');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<Outcome> {
    const asked = readRequest(request.method ?? '', request.url ?? '', request.rawHeaders);
    if ('reason' in asked) {
      refuse(response, asked);
      return 'refused';
    }
    if (this.#open > MAX_REQUESTS) {
      answerUnavailable(response, `it is answering ${MAX_REQUESTS} requests already`);
      return 'refused';
    }
    const replicas = [...this.#replicas.values()];
    const ready = replicas.filter(({ aside }) => aside === undefined);
    return await forward({
      request: asked,
      response,
      replicas: inOrder(ready, ({ address }) => address, asked.repository),
      nobody: ['no replica of the registry is ready', ...replicas.flatMap(({ aside }) => aside ?? [])].join(
        '; ',
      ),
      clientPatience: this.#options.timings.client,
      onBytes: (count) => this.#metrics.bytes.inc(count),
    });
  }
}

/** A proof of the node asks as its containerd does, and is no pull of anybody's. */
const CANARY = 'canary';
const OUTCOMES: readonly (Outcome | typeof CANARY)[] = [
  'forwarded',
  'declined',
  'no_replica',
  'failed',
  'silent',
  'refused',
  'left',
  CANARY,
];

function isForCanary(url: string | undefined): boolean {
  return (url?.includes(`ns=${CANARY_HOST}`) ?? false) || (url?.startsWith(`/v2/${CANARY_HOST}/`) ?? false);
}

function doorMetrics(states: () => readonly ReplicaState[]) {
  const requests = new Counter({
    name: 'weir_door_requests_total',
    help: `Requests by what became of them: ${OUTCOMES.join(', ')}.`,
    labelNames: ['outcome'],
    registers: [],
  });
  for (const outcome of OUTCOMES) requests.inc({ outcome }, 0);
  const bytes = new Counter({
    name: 'weir_door_bytes_total',
    help: 'Bytes of bodies that were handed to clients.',
    registers: [],
  });
  const replicas = new Gauge({
    name: 'weir_door_replicas',
    help: 'Replicas of the registry by state: ready, or put aside after a failure.',
    labelNames: ['state'],
    registers: [],
    collect(): void {
      for (const state of ['ready', 'aside']) this.set({ state }, 0);
      for (const { state } of states()) this.inc({ state });
    },
  });
  return { requests, bytes, replicas };
}

function refuse(response: ServerResponse, { status, reason }: Refusal): void {
  const body = errorBody('UNSUPPORTED', reason);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
    // Whatever else is on this connection was not meant for the door.
    connection: 'close',
  });
  response.end(body);
}

function listenProblem({ host, port }: Address, cause: unknown): Error {
  const inner = cause instanceof Error ? cause.cause : undefined;
  const isTaken = codeOf(inner) === 'EADDRINUSE';
  const what = isTaken ? 'another process on this node has the port' : messageOf(inner ?? cause);
  return new Error(
    `the door cannot listen on ${host}:${port}: ${what}. Give it another one: the chart's value door.port, or --door HOST:PORT.`,
    { cause },
  );
}
