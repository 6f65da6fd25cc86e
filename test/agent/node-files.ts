// A node's files for one test: a certificates directory, a state directory, and what is in them.

import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { type AgentOptions, applyOnce } from '../../agent/agent.ts';
import { CertsDirectories } from '../../agent/certs-directories.ts';
import type { Change } from '../../agent/change.ts';
import { rollback } from '../../agent/rollback.ts';
import type { Place } from '../../agent/state.ts';
import type { Config } from '../../config/config.ts';
import { parseConfig } from '../../config/parse.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

export const MIRROR = 'http://127.0.0.1:30500';
export const NOTE =
  '# Written by weir. Once you edit it, it is yours: weir leaves it alone. "weir rollback" brings back what was here.';

export interface NodeFiles extends Place {
  /** To be done before the files are removed. */
  atEnd(end: () => Promise<void>): void;
  /** By path below the certificates directory; a value `-> x` is a symbolic link to x. */
  put(files: Readonly<Record<string, string>>): Promise<void>;
  read(path: string): Promise<string>;
  /** Every entry below the certificates directory, with all that a restore has to bring back. */
  snapshot(): Promise<Readonly<Record<string, string>>>;
  apply(yaml: string | Config, mirror?: string): Promise<readonly Change[]>;
  /** What was done, as `written docker.io`. */
  applied(yaml: string | Config, mirror?: string): Promise<readonly string[]>;
  rollback(): Promise<readonly string[]>;
}

export async function makeNode(t: TestContext, certs = 'certs.d'): Promise<NodeFiles> {
  const scratch = await makeScratch();
  const ends: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const end of ends) await end();
    await removeScratch(scratch);
  });
  const certsDir = join(scratch, certs);
  const place = { certsDir, stateDir: join(scratch, 'state'), log: pino({ level: 'silent' }) };
  const apply = (yaml: string | Config, mirror = MIRROR): Promise<readonly Change[]> =>
    applyOnce({ ...place, mirror, config: typeof yaml === 'string' ? configOf(yaml) : yaml });
  return {
    ...place,
    atEnd: (end) => void ends.push(end),
    put: (files) => putFiles(certsDir, files),
    read: (path) => readFile(join(certsDir, path), 'utf8'),
    snapshot: () => snapshotOf(certsDir),
    apply,
    applied: async (yaml, mirror) => summary(await apply(yaml, mirror)),
    rollback: async () => summary(await rollback(place)),
  };
}

/** What an agent is told to look after those files. */
export function filesOf({ certsDir, stateDir, log }: Place): Pick<AgentOptions, 'files' | 'log'> {
  return { files: new CertsDirectories({ stateDir, log }, [certsDir]), log };
}

export function configOf(yaml: string): Config {
  return parseConfig(yaml).config;
}

/** The text below our marker's line, which has a hash that nobody can read. */
export function bodyOf(text: string): string {
  const [marker = '', ...lines] = text.split('\n');
  if (!/^# weir \{"sha256":"[0-9a-f]{64}","mirror":".+","was":.+\}$/.test(marker))
    throw new Error(`the first line is no marker: ${marker}`);
  return lines.join('\n');
}

function summary(changes: readonly Change[]): readonly string[] {
  return changes.map(({ kind, host }) => `${kind} ${host}`);
}

async function putFiles(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    if (text.startsWith('-> ')) await symlink(text.slice(3), join(root, path));
    else if (!path.endsWith('/')) await writeFile(join(root, path), text);
    else await mkdir(join(root, path), { recursive: true });
  }
}

async function snapshotOf(root: string): Promise<Readonly<Record<string, string>>> {
  if (!existsSync(root)) return {};
  const entries: [string, string][] = [['.', '']];
  for (const name of (await readdir(root, { recursive: true })).toSorted()) {
    const path = join(root, name);
    const { mode, uid, gid, ...entry } = await lstat(path).then((found) => ({
      mode: found.mode.toString(8),
      uid: found.uid,
      gid: found.gid,
      isLink: found.isSymbolicLink(),
      isFile: found.isFile(),
    }));
    const content = entry.isLink ? await readlink(path) : entry.isFile ? await readFile(path, 'utf8') : '';
    entries.push([name, `${mode} ${uid}:${gid} ${content}`]);
  }
  return Object.fromEntries(entries);
}
