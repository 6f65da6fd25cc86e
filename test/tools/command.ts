// One finished command: what the tests run to its end, with an error that carries what the command said.

import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

type CommandOptions = { cwd?: string; env?: NodeJS.ProcessEnv; signal?: AbortSignal };

export class CommandError extends Error {
  override readonly name = 'CommandError';
  /** The end of what the command wrote to standard error, or why it did not start. */
  readonly reason: string;

  constructor(command: string, reason: string, cause: Error) {
    super(`${command}: ${reason}`, { cause });
    this.reason = reason;
  }
}

/**
 * Standard output of a command that exited 0.
 *
 * @throws CommandError otherwise.
 */
export function run(command: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const limit = { maxBuffer: 64 * 1024 * 1024, encoding: 'utf8' as const };
  return new Promise((resolve, reject) => {
    execFile(command, args, { ...limit, ...options }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new CommandError([command, ...args].join(' '), lastLines(stderr) || error.message, error));
    });
  });
}

/** Whether a command of this name is to be had. */
export async function onPath(command: string): Promise<boolean> {
  const { PATH = '' } = process.env;
  const directories = PATH.split(delimiter).filter((directory) => directory !== '');
  const found = await Promise.all(
    directories.map((directory) =>
      access(join(directory, command), constants.X_OK).then(
        () => true,
        () => false,
      ),
    ),
  );
  return found.includes(true);
}

// A failing compiler writes pages; its reason is at the end.
function lastLines(stderr: string): string {
  return stderr.trim().split('\n').slice(-20).join('\n');
}
