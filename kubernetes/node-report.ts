import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Latest } from '../process/latest.ts';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem } from './client.ts';
import { type NodeReport, PARTING_PATCH, patchOf, patchOfEnd } from './node-annotations.ts';
import type { NodeEvents } from './node-events.ts';

export interface NodeReporterOptions {
  /** Is told of what was written. Closed with the reporter. */
  readonly events?: NodeEvents;
  /** Milliseconds from a report to its writing, give or take half: those that come meanwhile are one. */
  readonly gatherMs?: number;
  /** How many nodes have something to report when this one has: the more, the longer a report waits. */
  readonly nodes?: () => number;
  /** Milliseconds after which what the node says is written again, give or take a fifth. */
  readonly againMs?: number;
}

/** An edit reaches all nodes at once, and is followed by a proof on each of them. */
const GATHER_MS = 1_000;
/** Of all nodes. Whoever watches nodes, as a proxy or a network may on each of them, hears of every one. */
const REPORTS_PER_SECOND = 100;
/** Somebody may take the label away, or make the node anew. */
const AGAIN_MS = 300_000;
const LAST_ATTEMPTS = 3;
const LAST_PAUSE_MS = 1_000;
/** Whoever stops has little time, and a door that is shut is only a refused connection. */
const PARTING_MS = 3_000;

/** Writes what became of a node into its labels and annotations; the latest report wins, and is written until it is in. */
export class NodeReporter {
  readonly #kubernetes: Kubernetes;
  readonly #node: string;
  readonly #log: Logger;
  readonly #events: NodeEvents | undefined;
  readonly #gatherMs: number;
  readonly #nodes: () => number;
  readonly #againMs: number;
  readonly #latest: Latest<NodeReport>;
  #report: NodeReport | undefined;
  #written: string | undefined;
  #gathering: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #isBegun = false;
  /** As far as the node may say so. */
  #wasDoorOpen = false;
  #isClosed = false;

  constructor(kubernetes: Kubernetes, node: string, log: Logger, options: NodeReporterOptions = {}) {
    this.#kubernetes = kubernetes;
    this.#node = node;
    this.#log = log;
    this.#events = options.events;
    this.#gatherMs = options.gatherMs ?? GATHER_MS;
    this.#nodes = options.nodes ?? (() => 1);
    this.#againMs = options.againMs ?? AGAIN_MS;
    this.#latest = new Latest({
      act: (report) => this.#write(report),
      failed: (error) => log.warn({ err: error }, 'the node is told of again later'),
    });
  }

  report(report: NodeReport): void {
    if (this.#isClosed) return;
    this.#report = report;
    this.#wasDoorOpen ||= report.isDoorOpen;
    // Agents do not start together as they hear of an edit together.
    const spreadMs = this.#isBegun ? (1_000 * this.#nodes()) / REPORTS_PER_SECOND : 0;
    const waitMs = Math.max(this.#gatherMs, spreadMs) * (0.5 + Math.random());
    this.#gathering ??= setTimeout(() => this.#put(), waitMs).unref();
  }

  /**
   * The last word about the node: without a reason, label and annotations are taken away; with one they say why
   * weir could not leave it. Failing to say so is logged.
   */
  async conclude(reason?: string): Promise<void> {
    await this.close();
    const change = patchOfEnd(reason);
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#patch(change);
        return;
      } catch (error) {
        this.#log.warn({ err: error }, 'the label of the node stays');
        if (attempt === LAST_ATTEMPTS) return;
      }
      await pause(LAST_PAUSE_MS * attempt);
    }
  }

  /** Stops writing, and takes back what holds only while the agent runs. Failing to is logged, and harmless. */
  async part(): Promise<void> {
    await this.close();
    if (!this.#wasDoorOpen) return;
    const patience = new AbortController();
    try {
      await Promise.race([
        this.#patch(PARTING_PATCH),
        pause(PARTING_MS, undefined, patience).then(() => {
          throw new Error(`no answer within ${PARTING_MS / 1000} s`);
        }),
      ]);
    } catch (error) {
      this.#log.warn({ err: error }, 'the node still says that its door is open');
    } finally {
      patience.abort();
    }
  }

  /** Stops writing. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#gathering);
    await this.#latest.close();
    clearTimeout(this.#again);
    await this.#events?.close();
  }

  /** The newest report is the next to be written. */
  #put(): void {
    this.#gathering = undefined;
    if (this.#report !== undefined) this.#latest.put(this.#report);
  }

  async #write(report: NodeReport): Promise<void> {
    const change = patchOf(report);
    const text = JSON.stringify(change);
    if (text === this.#written) return;
    // A patch of nothing is answered with the node as it is, and needs no right to read nodes.
    if (!this.#isBegun) this.#events?.begin(await this.#patch({}));
    this.#isBegun = true;
    // What the node says after an attempt that failed is not known.
    this.#written = undefined;
    await this.#patch(change);
    this.#written = text;
    this.#events?.hear(report);
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#writeAgain(), this.#againMs * (0.8 + 0.4 * Math.random())).unref();
  }

  /** Although nothing changed. */
  #writeAgain(): void {
    this.#written = undefined;
    this.#put();
  }

  async #patch(merge: object): Promise<ObjectOf<'nodes'>> {
    try {
      return await this.#kubernetes.patch('nodes', { name: this.#node }, { merge });
    } catch (error) {
      throw apiProblem(`label node ${this.#node}`, error);
    }
  }
}
