import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import { canaryOf } from '../oci/canary.ts';
import { messageOf } from '../process/file-problem.ts';
import { Counter, Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { mirrorProblem } from './proof-probe.ts';

/** In milliseconds, and numbers of probes one after the other. */
export interface GateTimings {
  /** Between two probes, give or take a fifth: an ill mirror is not to be asked by all nodes at once. */
  readonly interval: number;
  /** So many that fail, and the mirror is ill. */
  readonly untilIll: number;
  /** So many that succeed, and it is well; twice as many each time that it fell ill again soon. */
  readonly untilWell: number;
  /** As many as that grows to. */
  readonly untilWellAtMost: number;
  /** Well for so long, it has not fallen ill "again soon". */
  readonly steady: number;
}

export const GATE_TIMINGS: GateTimings = {
  interval: 10_000,
  untilIll: 3,
  untilWell: 3,
  untilWellAtMost: 30,
  steady: 600_000,
};

export interface HealthGateOptions {
  /** The URL that hosts.toml names, as the node reaches it. */
  readonly mirror: string;
  /** PEM of the authority that signs its certificate. */
  readonly mirrorCa?: string | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Is told when {@link HealthGate.illness} begins and ends. */
  readonly onChange: () => void;
  readonly timings?: Partial<GateTimings>;
}

/**
 * Asks the mirror again and again for a manifest and blobs that every replica has, by the way that pulls take. The door
 * spares a pull from waiting for a mirror that is ill; this spares it from going there at all.
 */
export class HealthGate {
  readonly #options: HealthGateOptions;
  readonly #timings: GateTimings;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #count: Counter<'result'>;
  #illness: string | undefined;
  /** Probes that say the opposite of what is held, one after the other. */
  #against = 0;
  #untilWell: number;
  #wellSince = Number.NEGATIVE_INFINITY;

  constructor(options: HealthGateOptions) {
    this.#options = options;
    this.#timings = { ...GATE_TIMINGS, ...options.timings };
    this.#untilWell = this.#timings.untilWell;
    this.#count = new Counter({
      name: 'weir_agent_probes_total',
      help: 'Probes of the mirror, by the way that pulls of this node take: ok or failed.',
      labelNames: ['result'],
      registers: [options.metrics],
    });
    for (const result of ['ok', 'failed']) this.#count.inc({ result }, 0);
    const isIll = (): boolean => this.#illness !== undefined;
    options.metrics.registerMetric(
      new Gauge({
        name: 'weir_agent_mirror_ill',
        help: '1 while the mirror is ill, so that pulls go to the upstreams that may be asked directly.',
        registers: [],
        collect(): void {
          this.set(isIll() ? 1 : 0);
        },
      }),
    );
    this.#running = this.#run();
  }

  /** What is wrong with the mirror; `undefined` while it is well, or nothing else is known. */
  get illness(): string | undefined {
    return this.#illness;
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the mirror is not probed any more'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await pauseUnlessStopped(this.#timings.interval * (0.8 + 0.4 * Math.random()), signal);
      if (signal.aborted) return;
      const problem = await this.#probe();
      if (!signal.aborted) this.#weigh(problem);
    }
  }

  async #probe(): Promise<string | undefined> {
    const canary = canaryOf({ architecture: 'amd64', nonce: randomBytes(16).toString('hex') });
    const { mirror, mirrorCa } = this.#options;
    try {
      return await mirrorProblem(mirror, canary, {
        ca: mirrorCa,
        signal: this.#stop.signal,
        isBrief: true,
      });
    } catch (error) {
      return messageOf(error);
    }
  }

  #weigh(problem: string | undefined): void {
    this.#count.inc({ result: problem === undefined ? 'ok' : 'failed' });
    const isAgainst = (problem === undefined) !== (this.#illness === undefined);
    this.#against = isAgainst ? this.#against + 1 : 0;
    if (problem !== undefined && this.#illness === undefined && this.#against >= this.#timings.untilIll)
      this.#fallIll(problem);
    else if (problem === undefined && this.#against >= this.#untilWell) this.#recover();
  }

  #fallIll(problem: string): void {
    const { steady, untilWell, untilWellAtMost } = this.#timings;
    const isAgain = performance.now() - this.#wellSince < steady;
    this.#untilWell = isAgain ? Math.min(2 * this.#untilWell, untilWellAtMost) : untilWell;
    this.#change(problem);
    this.#options.log.error(
      { problem },
      'the mirror is ill: pulls go to the upstreams that may be asked directly',
    );
  }

  #recover(): void {
    this.#wellSince = performance.now();
    this.#change(undefined);
    this.#options.log.info('the mirror is well again');
  }

  #change(illness: string | undefined): void {
    this.#illness = illness;
    this.#against = 0;
    this.#options.onChange();
  }
}
