// What a tree of files amounts to, in one comparable line a path: what was pushed and what containerd unpacked
// are the same when these are.

import { createHash } from 'node:crypto';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** Path to description, for everything below the directory. */
export async function listFiles(root: string): Promise<Map<string, string>> {
  const paths = (await readdir(root, { recursive: true })).toSorted();
  const found = new Map<string, string>();
  for (const path of paths) found.set(path, await describeFile(join(root, path)));
  return found;
}

export function describeContent(content: Buffer, mode: number): string {
  return `file ${mode.toString(8)} ${content.length} ${createHash('sha256').update(content).digest('hex')}`;
}

export function describeLink(target: string): string {
  return `link to ${target}`;
}

export function describeDirectory(mode: number): string {
  return `directory ${mode.toString(8)}`;
}

async function describeFile(path: string): Promise<string> {
  const status = await lstat(path);
  const mode = status.mode & 0o7777;
  if (status.isSymbolicLink()) return describeLink(await readlink(path));
  if (status.isDirectory()) return describeDirectory(mode);
  if (status.isFile()) return describeContent(await readFile(path), mode);
  return `something else, mode ${status.mode.toString(8)}`;
}
