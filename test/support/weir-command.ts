import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';

const MAIN = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command to its end. */
export async function weir(...parameters: readonly string[]): Promise<Ran> {
  const child = spawn(process.execPath, [MAIN, ...parameters], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { code: child.exitCode, stdout, stderr };
}

/** Runs the command with this file or device for its standard output, and gives its code and standard error. */
export async function weirInto(
  output: string,
  ...parameters: readonly string[]
): Promise<Omit<Ran, 'stdout'>> {
  await using file = await open(output, 'w');
  const child = spawn(process.execPath, [MAIN, ...parameters], { stdio: ['ignore', file.fd, 'pipe'] });
  const [stderr] = await Promise.all([child.stderr === null ? '' : text(child.stderr), once(child, 'close')]);
  return { code: child.exitCode, stderr };
}

export interface RunningWeir {
  /** Of its listener, which took a free port. */
  readonly url: string;
  /** Resolves at the next line of the log that matches, also when it was written before. */
  logged(pattern: RegExp): Promise<string>;
  /** @returns its exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts a subcommand that stays, given a `--listen` with port 0, and waits until it listens. */
export async function startWeir(...parameters: readonly string[]): Promise<RunningWeir> {
  const child = spawn(process.execPath, [MAIN, ...parameters], { stdio: ['ignore', 'ignore', 'pipe'] });
  const log = new Log(child);
  const line = await log.next(/"url":"(https?:[^"]+)".*(the registry|the agent) answers/);
  const url = /"url":"(https?:[^"]+)"/.exec(line)?.[1] ?? '';
  return {
    url,
    logged: (pattern) => log.next(pattern),
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await log.ended;
      return child.exitCode;
    },
  };
}

/** Lines that a process wrote to standard error, each of them found once. */
class Log {
  readonly ended: Promise<void>;
  readonly #lines: string[] = [];
  #more = Promise.withResolvers<void>();
  #isOver = false;

  constructor(child: ChildProcess & { stderr: NodeJS.ReadableStream }) {
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.#lines.push(line);
      this.#wake();
    });
    this.ended = this.#end(child);
  }

  async #end(child: ChildProcess): Promise<void> {
    await once(child, 'close');
    this.#isOver = true;
    this.#wake();
  }

  async next(pattern: RegExp): Promise<string> {
    for (;;) {
      const at = this.#lines.findIndex((line) => pattern.test(line));
      const line = this.#lines[at];
      if (line !== undefined) {
        this.#lines.splice(at, 1);
        return line;
      }
      if (this.#isOver) throw new Error(`weir ended without ${String(pattern)}:\n${this.#lines.join('\n')}`);
      await this.#more.promise;
    }
  }

  #wake(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }
}
