import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kill } from 'node:process';
import { codeOf, messageOf } from '../process/file-problem.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { findProcesses, type HostProcess } from './runtimes/host-processes.ts';

/** Tells a process of the node to read its configuration again. @throws Error that says why it cannot be told. */
export type SendHangUp = (process: HostProcess) => Promise<void>;

/** A SIGHUP, for processes that are seen below this root. */
export function hangUpBelow(root: string): SendHangUp {
  return async ({ pid }) => {
    // Without the host's PID namespace, the number is another process's here, or nobody's.
    const [there, here] = await Promise.all([identityOf(join(root, 'proc'), pid), identityOf('/proc', pid)]);
    // It has ended meanwhile.
    if (there === undefined) return;
    if (there !== here)
      throw new Error(
        "the agent is not in the node's PID namespace (hostPID), so it cannot signal its processes",
      );
    try {
      kill(pid, 'SIGHUP');
    } catch (error) {
      throw new Error(`process ${pid} cannot be sent a SIGHUP: ${messageOf(error)}`, { cause: error });
    }
  };
}

export interface ReloaderOptions {
  /** Where the node's file system is mounted. */
  readonly root: string;
  /** The runtime's process (`crio`). */
  readonly name: string;
  readonly send: SendHangUp;
  /** A process younger than this, in milliseconds, may not know the signal yet, and would end by it. */
  readonly settle?: number;
}

const SETTLE_MS = 10_000;
/** The start of a process is known no better, since the time of the boot is in whole seconds. */
const BLUR_MS = 2_000;

/** Sees to it that the processes of a runtime have read a file since it was changed, by one signal for each change. */
export class Reloader {
  readonly #options: ReloaderOptions;
  /** The change that each process was last told of. */
  #told = new Map<string, number>();

  constructor(options: ReloaderOptions) {
    this.#options = options;
  }

  /**
   * @param changedAt in milliseconds of the epoch.
   * @returns why a process may not have read it; `undefined` when all have, or none runs, which reads it at its start.
   */
  async reload(changedAt: number, signal = NEVER): Promise<string | undefined> {
    const { root, name, send, settle = SETTLE_MS } = this.#options;
    const processes = await findProcesses(root, [name]);
    if (processes === undefined) return 'the processes of the node cannot be seen (no /proc below its root)';
    const told = new Map(
      processes.filter((one) => this.#hasRead(one, changedAt)).map((one) => [keyOf(one), changedAt]),
    );
    const untold = processes.filter((one) => !told.has(keyOf(one)));
    const wait = Math.max(0, ...untold.map(({ startedAt }) => startedAt + settle - Date.now()));
    if (wait > 0) {
      await pauseUnlessStopped(wait, signal);
      // They may have ended meanwhile, and another have the number.
      return signal.aborted ? 'the agent was told to stop first' : this.reload(changedAt, signal);
    }
    for (const process of untold) {
      try {
        await send(process);
      } catch (error) {
        return messageOf(error);
      }
      told.set(keyOf(process), changedAt);
    }
    this.#told = told;
    return undefined;
  }

  #hasRead(process: HostProcess, changedAt: number): boolean {
    return process.startedAt > changedAt + BLUR_MS || this.#told.get(keyOf(process)) === changedAt;
  }
}

const NEVER = new AbortController().signal;

function keyOf({ pid, startedAt }: HostProcess): string {
  return `${pid} ${startedAt}`;
}

/** Enough to tell one process from another that has its number: the name, and when it began. */
async function identityOf(proc: string, pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(join(proc, String(pid), 'stat'), 'utf8');
    const end = stat.lastIndexOf(')');
    return `${stat.slice(0, end)} ${stat.slice(end + 2).split(' ')[19]}`;
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES'].includes(codeOf(error) ?? '')) return undefined;
    throw error;
  }
}
