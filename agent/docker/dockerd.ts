import { type IncomingMessage, request } from 'node:http';
import { resolve } from 'node:path';
import { json } from 'node:stream/consumers';
import * as z from 'zod';
import { pauseUnlessStopped } from '../../process/pause.ts';
import { Reloader, type SendHangUp } from '../hang-up.ts';
import { resolveOnNode } from '../node-root.ts';
import { findProcesses, flagOf, type HostProcess } from '../runtimes/host-processes.ts';

export interface DockerdOptions {
  /** Where the node's file system is mounted. */
  readonly root: string;
  /** Where the node's /proc is, when it is not there. */
  readonly processRoot?: string;
  /** Where it answers: a path of the node. */
  readonly socket?: string;
  readonly send: SendHangUp;
  /** See {@link Reloader}. */
  readonly settle?: number;
  /** How long it may take to obey, in milliseconds. */
  readonly patience?: number;
}

/** How the running dockerd stands to its daemon.json. */
export type DockerdSight =
  | { readonly kind: 'runs'; readonly file: string }
  | { readonly kind: 'unfit'; readonly reason: string };

export const DAEMON_JSON = '/etc/docker/daemon.json';
const SOCKET = '/run/docker.sock';
const ASK_MS = 5_000;
/** A SIGHUP is obeyed within milliseconds. */
const PATIENCE_MS = 5_000;
const LOOK_MS = 50;

/** The dockerd of a node, as far as weir has to do with it. */
export class Dockerd {
  readonly #options: DockerdOptions;
  readonly #reloader: Reloader;

  constructor(options: DockerdOptions) {
    const { root, send, settle } = options;
    this.#options = options;
    this.#reloader = new Reloader({
      root,
      name: 'dockerd',
      send,
      ...(settle === undefined ? {} : { settle }),
    });
  }

  async look(): Promise<DockerdSight> {
    const { root, processRoot = root } = this.#options;
    const processes = await findProcesses(processRoot, ['dockerd']);
    if (processes === undefined)
      return { kind: 'unfit', reason: 'the processes of the node cannot be seen (no /proc below its root)' };
    const [process] = processes;
    if (process === undefined) return { kind: 'unfit', reason: 'no dockerd runs on the node' };
    if (hasMirrorFlag(process))
      return {
        kind: 'unfit',
        reason:
          'dockerd is given --registry-mirror on its command line, and with mirrors in its file as well it would not start again. Move them into the file.',
      };
    return { kind: 'runs', file: flagOf(process, '--config-file') ?? DAEMON_JSON };
  }

  /**
   * Sees to it that dockerd goes by what is in its file now.
   *
   * @param changedAt when the file was changed, in milliseconds of the epoch.
   * @param holds whether the mirrors are those of the file.
   * @returns why dockerd may go by something else; `undefined` when it says what it goes by, or does not run.
   */
  async reload(
    changedAt: number,
    holds: (mirrors: readonly string[]) => boolean,
    signal = NEVER,
  ): Promise<string | undefined> {
    const before = await this.mirrors();
    if (before !== undefined && holds(before)) return undefined;
    const problem = await this.#reloader.reload(changedAt, signal);
    if (problem !== undefined) return problem;
    const deadline = Date.now() + (this.#options.patience ?? PATIENCE_MS);
    for (;;) {
      const mirrors = await this.mirrors();
      // Nobody to ask: the signal has to do.
      if (mirrors === undefined || holds(mirrors)) return undefined;
      if (signal.aborted || Date.now() > deadline)
        return `dockerd goes by ${mirrors.length === 0 ? 'no mirror' : mirrors.join(', ')} still, although it was sent a SIGHUP: its log says why`;
      await pauseUnlessStopped(LOOK_MS, signal);
    }
  }

  /** What the running dockerd goes by; `undefined` when it does not answer. */
  async mirrors(): Promise<readonly string[] | undefined> {
    const { root, socket = SOCKET } = this.#options;
    try {
      return infoSchema.parse(await get(await resolveOnNode(resolve(root), socket), '/info')).RegistryConfig
        .Mirrors;
    } catch {
      return undefined;
    }
  }
}

const NEVER = new AbortController().signal;

const infoSchema = z.object({
  RegistryConfig: z.object({
    Mirrors: z
      .array(z.string())
      .nullish()
      .transform((list) => list ?? []),
  }),
});

function hasMirrorFlag({ args }: HostProcess): boolean {
  return args.some((arg) => /^--registry-mirror(?:=|$)/.test(arg));
}

async function get(socketPath: string, path: string): Promise<unknown> {
  const { promise, resolve: answer, reject } = Promise.withResolvers<IncomingMessage>();
  const signal = AbortSignal.timeout(ASK_MS);
  request({ socketPath, path, headers: { host: 'docker' }, signal }, answer)
    .on('error', reject)
    .end();
  return json(await promise);
}
