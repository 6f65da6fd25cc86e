import { connect } from 'node:net';
import { LRUCache } from 'lru-cache';
import { codeOf } from '../process/file-problem.ts';

/**
 * - `there`: something listens where the agents tell how they are;
 * - `gone`: the node refuses the connection, and others did not: an agent that was killed, and is not back yet;
 * - `unknown`: nobody knows, as where a firewall keeps Pods from nodes.
 */
export type AgentState = 'there' | 'gone' | 'unknown';

export interface AgentProbeOptions {
  /** Of every node, where its agent tells how it is. */
  readonly port: number;
  /** Milliseconds that an admission may wait. */
  readonly budgetMs?: number;
  readonly knownMs?: Readonly<Record<Reached, number>>;
}

type Reached = 'accepted' | 'refused' | 'silent';

const BUDGET_MS = 100;
const MAX_KNOWN = 10_000;
/** An agent is back within seconds; where nothing answers, nobody is to wait for it again and again. */
const KNOWN_MS: Readonly<Record<Reached, number>> = { accepted: 5_000, refused: 1_000, silent: 60_000 };

/**
 * Whether agents are there, as far as that can be told from outside. A node says that its door is open, and does so
 * until the next agent there when the last one was killed.
 */
export class AgentProbe {
  readonly #port: number;
  readonly #budgetMs: number;
  readonly #knownMs: Readonly<Record<Reached, number>>;
  readonly #known = new LRUCache<string, Reached>({ max: MAX_KNOWN });
  readonly #asking = new Map<string, Promise<Reached>>();
  /** Some firewalls refuse connections just as a node does on which nobody listens. */
  #hasReachedAny = false;

  constructor({ port, budgetMs = BUDGET_MS, knownMs = KNOWN_MS }: AgentProbeOptions) {
    this.#port = port;
    this.#budgetMs = budgetMs;
    this.#knownMs = knownMs;
  }

  /** Of the node with this address. Never rejects. */
  async look(address: string): Promise<AgentState> {
    const reached = this.#known.get(address) ?? (await this.#ask(address));
    if (reached === 'accepted') return 'there';
    return reached === 'refused' && this.#hasReachedAny ? 'gone' : 'unknown';
  }

  async #ask(address: string): Promise<Reached> {
    const asking = this.#asking.get(address) ?? this.#knock(address);
    this.#asking.set(address, asking);
    const reached = await asking;
    this.#asking.delete(address);
    this.#known.set(address, reached, { ttl: this.#knownMs[reached] });
    if (reached === 'accepted') this.#hasReachedAny = true;
    return reached;
  }

  async #knock(host: string): Promise<Reached> {
    const { promise, resolve } = Promise.withResolvers<Reached>();
    const socket = connect({ host, port: this.#port, timeout: this.#budgetMs });
    socket.on('connect', () => resolve('accepted'));
    socket.on('timeout', () => resolve('silent'));
    socket.on('error', (error) => resolve(codeOf(error) === 'ECONNREFUSED' ? 'refused' : 'silent'));
    try {
      return await promise;
    } finally {
      socket.destroy();
    }
  }
}
