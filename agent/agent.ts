import { resolve } from 'node:path';
import type { Logger } from 'pino';
import type { Config } from '../config/config.ts';
import { CANARY_HOST } from '../oci/canary.ts';
import { messageOf } from '../process/file-problem.ts';
import { applyConfig } from './certs-directory.ts';
import type { Change, HostState } from './change.ts';
import { type DriftWatch, watchDrift } from './drift.ts';
import { resolveOnNode } from './node-root.ts';
import { failedBy } from './reason-code.ts';
import type { Outcome, RuntimeFiles } from './runtime-files.ts';
import type { Place } from './state.ts';

/** The configuration as it stands, and word of every change. */
export interface ConfigFeed {
  readonly current: Config;
  /** The returned function ends it. */
  subscribe(listener: (config: Config) => void): () => void;
}

export interface AgentOptions {
  readonly files: RuntimeFiles;
  /** Where the node's file system is mounted; without it, it is this machine's own. */
  readonly root?: string;
  readonly log: Logger;
  /** Our registry's URL as the node reaches it (`http://127.0.0.1:30500`). */
  readonly mirror: string;
  /** PEM of the authority that signs its certificate, where the runtime would not trust that by itself. */
  readonly mirrorCa?: string | undefined;
  readonly source: ConfigFeed;
  /** Hosts of the configuration that are to be as they were before weir, and why. */
  readonly leave?: (config: Config) => ReadonlyMap<string, HostState>;
  readonly onChange?: (change: Change) => void;
  /** After every look: the configuration that it was about, and the state of each host in it. */
  readonly onApplied?: (config: Config, states: ReadonlyMap<string, HostState>) => void;
  /** After every look: the state of the canary's file, if it is to be there, and whether any file was changed. */
  readonly onCanary?: (state: HostState | undefined, isChanged: boolean) => void;
}

export interface OnceOptions extends Place {
  readonly mirror: string;
  readonly mirrorCa?: string;
  readonly config: Config;
  readonly canary?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Brings the node's files to what the configuration says, and keeps them there.
 *
 * @throws Error when `mirror` is no URL that a node could ask.
 */
export function startAgent(options: AgentOptions): Agent {
  return new Agent({ ...options, mirror: checkedMirror(options.mirror) });
}

/**
 * Brings the node's files to what the configuration says, once.
 *
 * @throws AggregateError that names each host that failed; the others are done.
 */
export async function applyOnce(options: OnceOptions): Promise<readonly Change[]> {
  const { config, mirrorCa, canary = false, signal } = options;
  const wanted = { config, mirrorCa, canary, mirror: checkedMirror(options.mirror) };
  const { changes, failures } = await applyConfig(options, wanted, signal);
  signal?.throwIfAborted();
  if (failures.length > 0) throw new AggregateError(failures, failures.map(messageOf).join('\n'));
  return changes;
}

/** Whatever no event told of is found this often, and what failed is tried again. */
const SAFETY_NET_MS = 60_000;

export class Agent {
  /** Settles when the files were looked at for the first time, whatever came of it. */
  readonly ready: Promise<void>;
  /** Settles when changes on disk are noticed. */
  readonly watching: Promise<void>;
  readonly #options: AgentOptions;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #drift: DriftWatch;
  readonly #timer: NodeJS.Timeout;
  #states: ReadonlyMap<string, HostState> = new Map();
  #canary: HostState | undefined;
  #running: Promise<void> | undefined;
  #isAskedFor = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#log = options.log;
    const ask = (): void => this.look();
    this.#unsubscribe = options.source.subscribe(ask);
    const { files, root = '/' } = options;
    this.#drift = watchDrift({
      directories: Promise.all(files.directories.map((path) => resolveOnNode(resolve(root), resolve(path)))),
      onDrift: ask,
      onError: (error) =>
        this.#log.warn({ err: error }, "the runtime's files cannot be watched; they are looked at regularly"),
    });
    this.watching = this.#drift.ready;
    this.#timer = setInterval(ask, SAFETY_NET_MS);
    this.#running = this.#run();
    this.ready = this.#running;
  }

  /** Of every configured host, as of the last look. */
  states(): ReadonlyMap<string, HostState> {
    return this.#states;
  }

  /** Stops looking after the files, and leaves them where they are. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#unsubscribe();
    clearInterval(this.#timer);
    await this.#drift.close();
    await this.#running;
  }

  /** Has the files looked at now. One run at a time: whatever is asked meanwhile is answered by one more. */
  look(): void {
    if (this.#stop.signal.aborted) return;
    this.#isAskedFor = true;
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    do {
      this.#isAskedFor = false;
      await this.#apply();
    } while (this.#isAskedFor && !this.#stop.signal.aborted);
    this.#running = undefined;
  }

  async #apply(): Promise<void> {
    const { files, mirror, mirrorCa, source, leave, onCanary } = this.#options;
    const canary = onCanary !== undefined;
    let isChanged = false;
    const config = source.current;
    const left = (config.enabled ? leave?.(config) : undefined) ?? new Map<string, HostState>();
    const upstreams = new Map([...config.upstreams].filter(([host]) => !left.has(host)));
    try {
      const outcome = await files.apply(
        { config: { ...config, upstreams }, mirror, mirrorCa, canary },
        this.#stop.signal,
      );
      isChanged = this.#report({ ...outcome, states: new Map([...outcome.states, ...left]) });
    } catch (error) {
      const failed = failedBy(error, messageOf(error));
      this.#log.error({ err: error }, 'the registry hosts could not be configured');
      this.#states = new Map(
        config.enabled ? [...config.upstreams.keys()].map((host) => [host, failed]) : [],
      );
      this.#canary = canary && this.#states.size > 0 ? failed : undefined;
    }
    if (this.#stop.signal.aborted) return;
    this.#options.onApplied?.(config, this.#states);
    onCanary?.(this.#canary, isChanged);
  }

  /** @returns whether any file was changed. */
  #report({ changes, states, canary, failures }: Outcome): boolean {
    if (this.#stop.signal.aborted) return false;
    const before = new Map([...this.#states, [CANARY_HOST, this.#canary]]);
    this.#states = states;
    this.#canary = canary;
    for (const change of changes) {
      // What is left alone is news once, not at every look.
      if (change.kind === 'left' && reasonOf(before.get(change.host)) === change.reason) continue;
      if (change.kind === 'left') this.#log.warn(change, 'a registry host is left');
      else this.#log.info(change, `a registry host is ${change.kind}`);
      this.#options.onChange?.(change);
    }
    for (const error of failures) this.#log.error({ err: error }, 'a registry host could not be configured');
    return changes.some(({ kind }) => kind !== 'left');
  }
}

function reasonOf(state: HostState | undefined): string | undefined {
  return state !== undefined && 'reason' in state ? state.reason : undefined;
}

/**
 * The mirror's URL, which is written into files as it is.
 *
 * @throws Error when it is no URL that a node could ask.
 */
export function checkedMirror(mirror: string): string {
  const isUrl = /^https?:\/\/[^\s\p{Cc}]+$/u.test(mirror) && URL.canParse(mirror);
  const { username, password, search, hash } = isUrl ? new URL(mirror) : new URL('http://invalid');
  if (!isUrl || username + password + search + hash !== '')
    throw new Error(`"${mirror}" is no address of a mirror. Write it as http://HOST:PORT or https://HOST.`);
  return mirror;
}
