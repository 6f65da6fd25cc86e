// A server that a test runs beside itself. It dies with the test, however the test dies, and what it writes
// is an event to wait for.

import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';

export type Child = {
  readonly pid: number;
  /** All lines that it wrote so far, standard output and error as they came. */
  readonly lines: readonly string[];
  /** The first line, written or yet to come, that matches; an error once it ended or took too long. */
  line: (pattern: RegExp) => Promise<string>;
  /** Throws, with what it wrote last, if it ended by itself. */
  mustRun: () => void;
  hasEnded: () => boolean;
  /** Sends the signal and waits for the end: the exit code, or the signal that ended it. */
  stop: (signal?: NodeJS.Signals) => Promise<number | NodeJS.Signals>;
};

const lineTimeout = 30_000;
const stopTimeout = 10_000;

export type ChildOptions = {
  env?: NodeJS.ProcessEnv;
  /** What to wait for before the child counts as started. */
  ready: (child: Child) => Promise<unknown>;
};

/** A child that is ready; one that does not get there is ended. */
export async function start(
  command: string,
  args: readonly string[],
  { env = process.env, ready }: ChildOptions,
): Promise<Child> {
  const child = await spawnChild(command, args, env);
  try {
    await ready(child);
  } catch (error) {
    await child.stop('SIGKILL');
    throw error;
  }
  return child;
}

async function spawnChild(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Child> {
  // The kernel ends the child when its parent is gone: no `after` hook runs in a test that was killed.
  const ends = ['--pdeathsig', 'KILL', '--'];
  const child = spawn('setpriv', [...ends, command, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: string[] = [];
  const changes = new EventEmitter();
  let ended: number | NodeJS.Signals | undefined;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      changes.emit('change');
    });
  }
  child.once('close', (code, signal) => {
    ended = code ?? signal ?? 0;
    changes.emit('change');
  });
  await once(child, 'spawn');
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${command} did not start`);

  const failure = (what: string) => new Error(`${command} ${what}; it wrote\n${lines.slice(-20).join('\n')}`);
  const mustRun = () => {
    if (ended !== undefined) throw failure(`ended with ${ended}`);
  };
  const until = async <Result>(
    look: () => Result | undefined,
    timeout: number,
    late: string,
  ): Promise<Result> => {
    const signal = AbortSignal.timeout(timeout);
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      await once(changes, 'change', { signal }).catch(() => {
        throw failure(late);
      });
    }
  };
  return {
    pid,
    lines,
    mustRun,
    hasEnded: () => ended !== undefined,
    line: (pattern) => {
      const look = () => {
        const found = lines.find((line) => pattern.test(line));
        if (found === undefined) mustRun();
        return found;
      };
      return until(look, lineTimeout, `did not write ${pattern}`);
    },
    stop: (signal = 'SIGTERM') => {
      child.kill(signal);
      return until(() => ended, stopTimeout, `did not end after ${signal}`);
    },
  };
}
