// A sandbox of the test cluster, from the outside: the namespaces in which sandbox.sh is process 1.

import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type Child, start } from '../tools/child.ts';
import { run } from '../tools/command.ts';

const SCRIPT = join(import.meta.dirname, 'sandbox.sh');
const NAMESPACES = ['--mount', '--pid', '--uts', '--ipc'];
const END_INTERVAL_MS = 20;

/** What a sandbox is made of; all of it has to be there when it starts. */
export interface SandboxFiles {
  /** Content by absolute path, as the sandbox sees it. */
  readonly files?: Readonly<Record<string, string>>;
  /** A shell script that runs before the services. */
  readonly setup?: string;
  /** Programs that always run, each a command line by its name. */
  readonly services: Readonly<Record<string, readonly string[]>>;
}

export class Sandbox {
  /** Its process 1, as the machine numbers it. */
  readonly pid: number;
  readonly #child: Child;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(child: Child, pid: number, env: NodeJS.ProcessEnv) {
    this.#child = child;
    this.pid = pid;
    this.#env = env;
  }

  /** The sandbox around a cluster. It ends with this process, and all that was started in it ends with it. */
  static async outside(directory: string, usr: string, env: NodeJS.ProcessEnv): Promise<Sandbox> {
    const inside = ['--fork', '--kill-child=KILL', '--propagation', 'private'];
    const args = [...NAMESPACES, '--net', ...inside, SCRIPT, 'outside', directory, usr];
    const child = await start('unshare', args, { env, ready: (running) => running.line(/^ready$/) });
    return new Sandbox(child, onlyChild(child.pid), env);
  }

  /** A machine within it, on the network of that name. */
  async machine(directory: string, network: string): Promise<Sandbox> {
    // The network first: its name is one of the sandbox, and the others are entered by their number.
    const enter = ['--target', String(this.pid), ...NAMESPACES, `--net=${this.#networkPath(network)}`];
    const unshare = ['unshare', ...NAMESPACES, '--fork', '--propagation', 'private'];
    const args = [...enter, '--', ...unshare, SCRIPT, 'machine', directory];
    const child = await start('nsenter', args, {
      env: this.#env,
      ready: (running) => running.line(/^ready$/),
    });
    return new Sandbox(child, onlyChild(onlyChild(child.pid)), this.#env);
  }

  /** Standard output of a command that runs inside; it has the sandbox's tools on its PATH. */
  exec(command: string, ...args: readonly string[]): Promise<string> {
    return run('nsenter', [...this.#enter, command, ...args], { cwd: '/', env: this.#env });
  }

  /** What `exec` runs, less the command, as a command line. */
  get shell(): string {
    const variables = Object.entries(this.#env).map(([name, value]) => `${name}=${value}`);
    return ['nsenter', ...this.#enter, 'env', ...variables].join(' ');
  }

  /** A file of the sandbox, as a path from here. */
  path(file: string): string {
    return join('/proc', String(this.pid), 'root', file);
  }

  /** Like pulling the plug: when it is done, nothing that ran inside is left. */
  async stop(): Promise<void> {
    process.kill(this.pid, 'SIGKILL');
    while (!this.#child.hasEnded()) await setTimeout(END_INTERVAL_MS);
  }

  get #enter(): string[] {
    return ['--target', String(this.pid), ...NAMESPACES, '--net', '--'];
  }

  #networkPath(network: string): string {
    return this.path(join('/run/netns', network));
  }
}

/** Writes what a sandbox in this directory needs to start. */
export async function layOut(
  directory: string,
  { files = {}, setup = '', services }: SandboxFiles,
): Promise<void> {
  await mkdir(join(directory, 'services'), { recursive: true });
  await writeFile(join(directory, 'setup'), setup);
  for (const [path, content] of Object.entries(files)) {
    const file = join(directory, 'root', path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
  }
  for (const [name, command] of Object.entries(services))
    await writeFile(join(directory, 'services', name), command.map((line) => `${line}\n`).join(''));
}

function onlyChild(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  const [child = ''] = children;
  if (children.length !== 1 || child === '')
    throw new Error(`process ${pid} was to have one child, and has ${children.join(', ') || 'none'}`);
  return Number(child);
}
