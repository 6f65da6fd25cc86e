import type { Logger } from 'pino';
import { type Configured, configureRuntime } from '../agent/configure/configure.ts';
import { restoreRuntimeConfiguration } from '../agent/configure/restore.ts';
import type { NodeSight } from '../agent/runtimes/node-sight.ts';
import type { NodePlace } from '../agent/state.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { takeLease } from '../kubernetes/lease.ts';
import { describe } from '../process/lifecycle.ts';
import { VERSION } from './version.ts';

export interface NodeConfigureOptions {
  readonly kubernetes: Kubernetes;
  /** Which one node at a time has, so that one runtime at a time is restarted. */
  readonly lease: ObjectName;
  readonly node: string;
  readonly place: NodePlace;
  readonly sight: NodeSight;
  readonly log: Logger;
  /** Is told when {@link NodeConfigure.problem} is known. */
  readonly refused: () => void;
}

/** Has `config_path` set where it is missing, beside everything else that the agent does. */
export class NodeConfigure {
  /** Rejects when it was set: the node is another now. */
  readonly changed: Promise<never>;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #problem: string | undefined;

  constructor(options: NodeConfigureOptions) {
    const changed = Promise.withResolvers<never>();
    changed.promise.catch(() => undefined);
    this.changed = changed.promise;
    this.#running = this.#run(options, changed.reject);
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

  async #run(options: NodeConfigureOptions, changed: (reason: Error) => void): Promise<void> {
    const refused = (problem: string): void => {
      this.#problem = `weir did not set config_path: ${problem}`;
      options.refused();
    };
    try {
      const end = await this.#configure(options);
      if ('reason' in end) refused(`${end.reason}. ${end.remedy}`);
      else if (end.kind === 'configured')
        changed(new Error('config_path is set, and the runtime was restarted; the agent starts again'));
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      options.log.error({ err: error }, 'config_path could not be set');
      refused(describe(error));
    }
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
