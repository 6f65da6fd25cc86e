import { setTimeout } from 'node:timers/promises';
import type { NodeSight } from '../runtimes/node-sight.ts';
import { findContainerd } from './containerd-process.ts';
import { Refusal } from './refusal.ts';
import { findUnit, unitOf } from './systemd.ts';
import { restartsItself } from './target.ts';

/** By whom a runtime is restarted. */
export interface Restarter {
  /** Under which {@link findRestarter} finds it again while the runtime does not run. */
  readonly name: string;
  /** Whether it restarts the runtime by itself as soon as its files have changed. */
  readonly isByItself: boolean;
  /** What tells one run of the runtime from every other; `undefined` while it does not run. */
  run(): Promise<string | undefined>;
  /**
   * Has the runtime begin another run than this one, and waits until it has, or could not.
   *
   * @throws Error when it does not run afterwards.
   */
  restart(run: string | undefined, signal: AbortSignal): Promise<void>;
}

/** How often one looks whether another run has begun. */
const LOOK_MS = 500;
/** k0s looks for changes every now and then. */
const PATIENCE_MS = 120_000;

/**
 * The one that restarts the containerd of this node: systemd, or the distribution by itself.
 *
 * @param name of the one that was found before.
 * @throws Refusal when there is none.
 */
export async function findRestarter(root: string, sight: NodeSight, name?: string): Promise<Restarter> {
  if (name === SELF || (name === undefined && restartsItself(sight))) return new Self(root, sight);
  return name === undefined ? findUnit(root, await findContainerd(root, sight)) : unitOf(root, name);
}

const SELF = 'itself';

/** A distribution that restarts containerd as soon as its files change. */
class Self implements Restarter {
  readonly name = SELF;
  readonly isByItself = true;
  readonly #root: string;
  readonly #sight: NodeSight;

  constructor(root: string, sight: NodeSight) {
    this.#root = root;
    this.#sight = sight;
  }

  async run(): Promise<string | undefined> {
    try {
      const { pid, startedAt } = await findContainerd(this.#root, this.#sight);
      return `${pid}@${startedAt}`;
    } catch (error) {
      if (error instanceof Refusal) return undefined;
      throw error;
    }
  }

  async restart(before: string | undefined, signal: AbortSignal): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    for (;;) {
      const run = await this.run();
      if (run !== undefined && run !== before) return;
      if (performance.now() > until)
        throw new Error(
          `${this.#sight.distribution.value} did not restart containerd within ${PATIENCE_MS / 1000} s`,
        );
      await setTimeout(LOOK_MS, undefined, { signal });
    }
  }
}
