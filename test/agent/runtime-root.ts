// A node's file system below a root, with processes as its /proc would show them, for one test.

import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import type { Change } from '../../agent/change.ts';
import type { Outcome } from '../../agent/runtime-files.ts';
import type { NodePlace } from '../../agent/state.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

export interface RuntimeRoot extends NodePlace {
  readonly root: string;
  /** By path of the node; a value `-> x` is a symbolic link to x, a path that ends in a slash a directory. */
  put(files: Readonly<Record<string, string>>): Promise<void>;
  read(path: string): Promise<string>;
  /** Every entry below /etc, with all that a restore has to bring back. */
  etc(): Promise<Readonly<Record<string, string>>>;
  /** The names below our state directory. */
  kept(): Promise<readonly string[]>;
}

export async function makeRoot(
  t: TestContext,
  files: Readonly<Record<string, string>> = {},
): Promise<RuntimeRoot> {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  const put = (given: Readonly<Record<string, string>>): Promise<void> => putFiles(root, given);
  await put({ '/etc/': '', '/var/lib/weir/': '', ...files });
  return {
    root,
    stateDir: '/var/lib/weir',
    log: pino({ level: 'silent' }),
    put,
    read: (path) => readFile(join(root, path), 'utf8'),
    etc: () => snapshotOf(join(root, 'etc')),
    kept: () => readdir(join(root, 'var/lib/weir'), { recursive: true }),
  };
}

/** Processes of the node, by number, which began so many seconds after 1970. */
export function processes(
  byPid: Readonly<Record<number, { readonly args: readonly string[]; readonly at?: number }>>,
): Readonly<Record<string, string>> {
  const files = Object.entries(byPid).flatMap(([pid, { args, at = 1 }]): [string, string][] => [
    [`/proc/${pid}/cmdline`, args.map((arg) => `${arg}\0`).join('')],
    [`/proc/${pid}/stat`, `${pid} (x) S ${Array(18).fill(0).join(' ')} ${at * 100} 0\n`],
    [`/proc/${pid}/status`, `Name:\tx\nNSpid:\t${pid}\n`],
  ]);
  return { '/proc/stat': 'btime 0\n', ...Object.fromEntries(files) };
}

/** What was done, as `written docker.io`. */
export function summary(changes: readonly Change[]): readonly string[] {
  return changes.map(({ kind, host }) => `${kind} ${host}`);
}

/** By host, as `configured`, or with its reason. */
export function statesOf({ states }: Outcome): Readonly<Record<string, string>> {
  return Object.fromEntries(
    [...states].map(([host, state]) => [
      host,
      state.kind === 'configured' ? state.kind : `${state.kind}: ${state.reason}`,
    ]),
  );
}

async function putFiles(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    if (path.endsWith('/')) await mkdir(join(root, path), { recursive: true });
    else if (text.startsWith('-> ')) await symlink(text.slice(3), join(root, path));
    else await writeFile(join(root, path), text);
  }
}

async function snapshotOf(root: string): Promise<Readonly<Record<string, string>>> {
  const entries: [string, string][] = [];
  for (const name of (await readdir(root, { recursive: true })).toSorted()) {
    const path = join(root, name);
    const found = await lstat(path);
    const content = found.isSymbolicLink()
      ? `-> ${await readlink(path)}`
      : found.isFile()
        ? await readFile(path, 'utf8')
        : '/';
    entries.push([name, `${found.mode.toString(8)} ${found.uid}:${found.gid} ${content}`]);
  }
  return Object.fromEntries(entries);
}
