import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import type { HostState } from '../agent/change.ts';
import { GENERATED } from '../agent/generator.ts';
import type { RuntimeFiles } from '../agent/runtime-files.ts';
import { askCri } from '../agent/runtimes/ask-cri.ts';
import { filesOf } from '../agent/runtimes/files-of.ts';
import { type NodeSight, reasonOf } from '../agent/runtimes/node-sight.ts';
import { ownedOf } from '../agent/runtimes/owned-hosts.ts';
import { type NodeWatch, watchNode } from '../agent/runtimes/watch-node.ts';
import { type NodePlace, rememberedDirectories } from '../agent/state.ts';
import type { Config } from '../config/config.ts';
import { describe } from '../process/lifecycle.ts';
import { pauseUnlessStopped } from '../process/pause.ts';

const DEFAULT_SOCKET = '/run/containerd/containerd.sock';
/** A node that cannot be looked at is tried again this often. */
const RETRY_MS = 15_000;
/** More first looks at a runtime that is silent, three seconds apart, before files of ours are taken away for it. */
const PATIENCE = 5;

export interface NodeRuntimeOptions {
  readonly place: NodePlace;
  /** Instead of what is found. */
  readonly certsDir?: string;
  /** Instead of what is found. */
  readonly criSocket?: string;
  readonly log: Logger;
  readonly stop: AbortSignal;
  /** Is told why the node cannot be looked at. */
  readonly refused: (problem: string) => void;
}

/** The runtime of a node as it was found, which holds until {@link NodeRuntime.changed}. */
export class NodeRuntime {
  readonly sight: NodeSight;
  /** Rejects when the runtime is to be told in another way from now on. */
  readonly changed: Promise<never>;
  /** What is written to have the runtime ask the mirror; `undefined` where nothing is. */
  readonly files: RuntimeFiles | undefined;
  readonly #options: NodeRuntimeOptions;
  readonly #watch: NodeWatch;

  private constructor(options: NodeRuntimeOptions, watch: NodeWatch, changed: Promise<never>) {
    this.#options = options;
    this.#watch = watch;
    this.sight = watch.sight;
    this.changed = changed;
    this.files = filesOf(this.sight, options);
    const { distribution, runtime, version, verdict, notes } = this.sight;
    options.log.info(
      {
        distribution: distribution.value,
        runtime: runtime.value,
        version: version?.value,
        verdict: verdict.kind,
        watches: this.files?.directories,
        notes,
      },
      'the runtime of this node',
    );
  }

  /** Looks until it sees; `undefined` when it is told to stop before. */
  static async see(options: NodeRuntimeOptions): Promise<NodeRuntime | undefined> {
    const { place, criSocket, log, stop, refused } = options;
    const changed = Promise.withResolvers<never>();
    changed.promise.catch(() => undefined);
    let last = '';
    while (!stop.aborted) {
      try {
        const watch = await watchNode({
          root: place.root ?? '/',
          stop,
          patience: (await rememberedDirectories(place)).length > 0 ? PATIENCE : 0,
          askCri: (asked) => askCri({ ...asked, ...(criSocket === undefined ? {} : { socket: criSocket }) }),
          onChange: (sight) => {
            if (!isDeepStrictEqual(essenceOf(sight), essence))
              changed.reject(
                new Error(
                  'the runtime of this node is another now, or configured otherwise; the agent starts again',
                ),
              );
          },
          onError: (error) =>
            log.warn({ err: error }, 'the node could not be looked at; what was seen before holds'),
        });
        const essence = essenceOf(watch.sight);
        return new NodeRuntime(options, watch, changed.promise);
      } catch (error) {
        const problem = `the runtime of this node cannot be found out: ${describe(error)}`;
        if (problem !== last) refused(problem);
        last = problem;
      }
      await pauseUnlessStopped(RETRY_MS, stop);
    }
    return undefined;
  }

  /** Why there are no {@link NodeRuntime.files}, and what to do about it. */
  get blocked(): string {
    return reasonOf(this.sight) ?? 'it is not known where the runtime looks for its registries';
  }

  /** Of hosts.toml files; none where the runtime has another way. */
  get certsDirs(): readonly string[] {
    const { certsDir } = this.#options;
    return certsDir === undefined ? this.sight.certsDirs : [certsDir];
  }

  get socket(): string {
    return this.#options.criSocket ?? this.sight.socket?.value ?? DEFAULT_SOCKET;
  }

  /** The hosts of the configuration that belong to the distribution. */
  owned(config: Config): ReadonlyMap<string, HostState> {
    return new Map(
      ownedOf(config, this.sight).map(({ host, reason }) => [
        host,
        { kind: 'unsupported', reason, code: GENERATED },
      ]),
    );
  }

  async close(): Promise<void> {
    await this.#watch.close();
  }
}

/** What the agent goes by. */
export function essenceOf(sight: NodeSight): unknown {
  const { runtime, socket, certsDirs, laterDirs, ownedHosts, missingConfigPath, verdict } = sight;
  return {
    runtime: runtime.value,
    socket: socket?.value,
    certsDirs,
    laterDirs,
    ownedHosts,
    missingConfigPath,
    verdict,
  };
}
