import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { codeOf } from '../../process/file-problem.ts';

/** A process of the node itself, and not of a container on it. */
export interface HostProcess {
  readonly pid: number;
  readonly args: readonly string[];
  /** In milliseconds of the epoch. */
  readonly startedAt: number;
}

/**
 * The processes of the node with these names, from the /proc below `root`; `undefined` when there is none, as where
 * the mount of the node's file system is without it.
 */
export async function findProcesses(
  root: string,
  names: readonly string[],
): Promise<readonly HostProcess[] | undefined> {
  const proc = join(root, 'proc');
  const booted = /^btime (\d+)$/m.exec((await read(join(proc, 'stat'))) ?? '')?.[1];
  if (booted === undefined) return undefined;
  const found: HostProcess[] = [];
  for (const name of (await readdir(proc)).filter((entry) => /^\d+$/.test(entry))) {
    const directory = join(proc, name);
    const args = ((await read(join(directory, 'cmdline'))) ?? '').replace(/\0$/, '').split('\0');
    if (!names.includes(basename(args[0] ?? ''))) continue;
    const ticks = startOf((await read(join(directory, 'stat'))) ?? '');
    if (ticks === undefined || !isOfNode((await read(join(directory, 'status'))) ?? '')) continue;
    found.push({ pid: Number(name), args, startedAt: Number(booted) * 1000 + ticks * MS_PER_TICK });
  }
  return found.toSorted((one, other) => one.pid - other.pid);
}

/** A flag's value, given as `--name value` or `--name=value`. */
export function flagOf({ args }: HostProcess, ...names: readonly string[]): string | undefined {
  for (const [index, arg] of args.entries()) {
    if (names.includes(arg)) return args[index + 1];
    const name = names.find((flag) => arg.startsWith(`${flag}=`));
    if (name !== undefined) return arg.slice(name.length + 1);
  }
  return undefined;
}

/** USER_HZ, which is 100 wherever Linux has it to tell (proc_pid_stat(5)). */
const MS_PER_TICK = 10;

/** Field 22; the second, a name in brackets, may have anything in it. */
function startOf(stat: string): number | undefined {
  const field = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return field === undefined || !/^\d+$/.test(field) ? undefined : Number(field);
}

/** One in a PID namespace of its own, as those of Pods are, has a number in each of them. */
function isOfNode(status: string): boolean {
  return /^NSpid:\t\d+$/m.test(status);
}

async function read(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    // It may have ended meanwhile.
    if (['ENOENT', 'ESRCH', 'EACCES', 'ENOTDIR'].includes(codeOf(error) ?? '')) return undefined;
    throw error;
  }
}
