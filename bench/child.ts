import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';

/** A process beside the benchmark. It dies with the benchmark, however that dies. */
export interface Child {
  readonly pid: number;
  readonly process: ChildProcess;
  /** What it wrote so far. */
  output(): Promise<string>;
  /** The first match in its output, which is yet to come. @throws Error when it ended without. */
  match(pattern: RegExp): Promise<string>;
  /** Ends it, and resolves when it has ended. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

const LOOK_EVERY_MS = 5;

/** Starts a command whose output goes to a file, so that nobody has to keep up with reading it. */
export async function startChild(
  command: string,
  parameters: readonly string[],
  outputFile: string,
): Promise<Child> {
  await using output = await open(outputFile, 'w');
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...parameters], {
    stdio: ['pipe', output.fd, output.fd],
  });
  await once(child, 'spawn');
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} did not start`);
  const ended = once(child, 'exit');
  const read = (): Promise<string> => readFile(outputFile, 'utf8');
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  return {
    pid,
    process: child,
    output: read,
    async match(pattern) {
      for (;;) {
        const over = hasEnded();
        const found = pattern.exec(await read())?.[1];
        if (found !== undefined) return found;
        if (over) throw new Error(`${command} ${parameters.join(' ')} ended:\n${await read()}`);
        await setTimeout(LOOK_EVERY_MS);
      }
    },
    async stop(signal = 'SIGTERM') {
      if (hasEnded()) return;
      child.kill(signal);
      await ended;
    },
  };
}

/** Seconds of processor time that a process has used, its own and the system's for it. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // proc_pid_stat(5): the second field is in parentheses and may hold spaces; utime and stime are 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}

/** Megabytes of memory at its peak, since the start or {@link forgetPeak}. */
export async function peakMegabytes(pid: number): Promise<number> {
  return await megabytesOf(pid, 'VmHWM');
}

/** Megabytes of memory now. */
export async function residentMegabytes(pid: number): Promise<number> {
  return await megabytesOf(pid, 'VmRSS');
}

/** Has the peak begin anew with what is there now. */
export async function forgetPeak(pid: number): Promise<void> {
  // proc_pid_clear_refs(5): "Reset the peak resident set size".
  await writeFile(`/proc/${pid}/clear_refs`, '5');
}

async function megabytesOf(pid: number, field: 'VmHWM' | 'VmRSS'): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0) / 1024);
}

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const CLOCK_TICKS = 100;
