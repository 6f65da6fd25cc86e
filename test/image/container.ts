// A program of the image as a cluster runs it: the root file system read-only, the process PID 1 under a user of
// its own. It sees the machine's network, where the upstreams of the tests are.

import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, start } from '../tools/child.ts';
import { CommandError, run } from '../tools/command.ts';
import type { ImageConfig } from './oci-layout.ts';

export interface ContainerOptions {
  /** The unpacked root file system. */
  readonly root: string;
  readonly config: ImageConfig;
  /** Directories of this machine by where the program finds them. */
  readonly volumes?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Instead of the image's. */
  readonly user?: string;
  readonly entrypoint?: readonly string[];
}

export interface Container {
  readonly lines: readonly string[];
  line(pattern: RegExp): Promise<string>;
  /** Sends SIGTERM to PID 1 of the container, which the kernel only delivers where it is handled. */
  stop(): Promise<number | NodeJS.Signals>;
}

const NAMESPACES = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private'];
const SCRIPT = `set -e
root=$1 user=$2; shift 2
mount --bind "$root" "$root"
while [ "$1" != -- ]; do mount --bind "$2" "$root$1"; shift 2; done; shift
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" "$@"`;

/** Runs a program to its end. @returns its standard output. @throws CommandError when it does not exit with 0. */
export async function runContainer(options: ContainerOptions, args: readonly string[]): Promise<string> {
  return run('unshare', await commandLine(options, args), { env: environment(options) });
}

/** Why this machine cannot run containers, or undefined when it can. */
export async function namespaceRefusal(): Promise<string | undefined> {
  return run('unshare', [...NAMESPACES, 'true']).then(
    () => undefined,
    (error: unknown) => (error instanceof CommandError ? error.reason : String(error)),
  );
}

/** Starts a program that stays, and waits for the line that says that it is ready. */
export async function startContainer(
  options: ContainerOptions & { readonly ready: RegExp },
  args: readonly string[],
): Promise<Container> {
  const child = await start('unshare', await commandLine(options, args), {
    env: environment(options),
    ready: (started) => started.line(options.ready),
  });
  return {
    lines: child.lines,
    line: child.line,
    async stop() {
      process.kill(await firstProcess(child), 'SIGTERM');
      // It is the program that is to end now, and `unshare`, which ends like it, that is waited for.
      return child.stop('SIGCONT');
    },
  };
}

async function commandLine(
  { root, config, volumes = {}, user, entrypoint }: ContainerOptions,
  args: readonly string[],
): Promise<string[]> {
  for (const target of ['/proc', ...Object.keys(volumes)])
    await mkdir(join(root, target), { recursive: true });
  const command = [...(entrypoint ?? config.Entrypoint), ...args];
  const script = ['sh', '-c', SCRIPT, 'sh', root, user ?? config.User];
  return [...NAMESPACES, ...script, ...Object.entries(volumes).flat(), '--', ...command];
}

function environment({ config, env = {} }: ContainerOptions): Record<string, string> {
  const own = config.Env.map((entry): [string, string] => {
    const at = entry.indexOf('=');
    return [entry.slice(0, at), entry.slice(at + 1)];
  });
  return { ...Object.fromEntries(own), ...env };
}

async function firstProcess({ pid }: Child): Promise<number> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return Number.parseInt(children, 10);
}
