import type { Logger } from 'pino';
import { type Configured, configureRuntime } from '../agent/configure/configure.ts';
import { restoreRuntimeConfiguration } from '../agent/configure/restore.ts';
import type { NodeSight } from '../agent/runtimes/node-sight.ts';
import type { NodePlace } from '../agent/state.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { takeLease } from '../kubernetes/lease.ts';
import { describe } from '../process/lifecycle.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { VERSION } from './version.ts';

export interface NodeConfigureOptions {
  readonly kubernetes: Kubernetes;
  /** Which one node at a time has, so that one runtime at a time is restarted. */
  readonly lease: ObjectName;
  readonly node: string;
  readonly place: NodePlace;
  readonly sight: NodeSight;
  readonly log: Logger;
  /** Is told when {@link NodeConfigure.problem} is another. */
  readonly refused: () => void;
  /** For how many milliseconds after so many tries; longer and longer, without it. */
  readonly pause?: (tries: number) => number;
}

/** What is slow, full or away now may not be so in a while; what stays as it is costs a look then. */
const FIRST_PAUSE_MS = 15_000;
const LONGEST_PAUSE_MS = 600_000;

/** How long to wait after so many tries: longer each time, and not as long as other nodes. @param chance from 0 to 1. */
export function pauseAfter(tries: number, chance: number): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS) * (0.5 + chance);
}

/** Has `config_path` set where it is missing, beside everything else that the agent does, and tries until it is. */
export class NodeConfigure {
  /** Rejects when it was set: the node is another now. */
  readonly changed: Promise<never>;
  readonly #options: NodeConfigureOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #problem: string | undefined;

  constructor(options: NodeConfigureOptions) {
    const changed = Promise.withResolvers<never>();
    changed.promise.catch(() => undefined);
    this.changed = changed.promise;
    this.#options = options;
    this.#running = this.#run(changed.reject);
  }

  /** Why `config_path` could not be set, and what to do about it. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** What is begun is left to the next start of the agent. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the agent is told to stop'));
    await this.#running;
  }

  async #run(changed: (reason: Error) => void): Promise<void> {
    const { pause = (tries) => pauseAfter(tries, Math.random()) } = this.#options;
    const { signal } = this.#stop;
    for (let tries = 1; !signal.aborted; tries++) {
      const end = await this.#try();
      if (signal.aborted) return;
      this.#tell(end.problem);
      if (end.kind === 'configured')
        changed(new Error('config_path is set, and the runtime was restarted; the agent starts again'));
      // The journal knows what must not be tried again, and how often the runtime may be restarted.
      if (end.problem === undefined) return;
      await pauseUnlessStopped(pause(tries), signal);
    }
  }

  async #try(): Promise<{ readonly kind: Configured['kind']; readonly problem?: string }> {
    try {
      const end = await this.#configure(this.#options);
      return 'reason' in end ? { kind: end.kind, problem: `${end.reason}. ${end.remedy}` } : end;
    } catch (error) {
      return { kind: 'failed', problem: describe(error) };
    }
  }

  #tell(reason: string | undefined): void {
    const problem = reason && `weir did not set config_path: ${reason}`;
    if (problem === this.#problem) return;
    this.#problem = problem;
    if (problem !== undefined) this.#options.log.warn({ reason }, 'weir did not set config_path');
    this.#options.refused();
  }

  #configure({ kubernetes, lease, node, place, sight, log }: NodeConfigureOptions): Promise<Configured> {
    const { root = '/', stateDir } = place;
    return configureRuntime({
      root,
      stateDir,
      version: VERSION,
      sight,
      log,
      signal: this.#stop.signal,
      takeTurn: (signal) => takeLease({ kubernetes, lease, holder: node, log }, signal),
    });
  }
}

/** Takes `config_path` out again, where weir set it. @throws Error when it cannot be put back. */
export async function forgetConfigure({ root = '/', stateDir, log }: NodePlace): Promise<void> {
  await restoreRuntimeConfiguration({ root, stateDir, log });
}
