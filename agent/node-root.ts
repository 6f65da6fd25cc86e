import { lstat, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf, fileProblem } from '../process/file-problem.ts';

/** As many as Linux follows (path_resolution(7)). */
const MAX_LINKS = 40;

/** Links that lead round in a circle, or as good as that. */
export class LinkLoopError extends Error {}

/**
 * Where a path of the node really is, when the node's file system is mounted at `root`: symbolic links lead where
 * they lead on the node, absolute ones too. What of the path is there already decides where the rest will be.
 *
 * @throws Error when a part of it cannot be looked at, or its links lead round in a circle.
 */
export async function resolveOnNode(root: string, path: string): Promise<string> {
  const rest = partsOf(path);
  const found: string[] = [];
  let links = 0;
  for (let part = rest.shift(); part !== undefined; part = rest.shift()) {
    if (part === '..') {
      found.pop();
      continue;
    }
    const target = await linkTarget(join(root, ...found, part));
    if (target === undefined) {
      found.push(part);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new LinkLoopError(`cannot look at ${path}: too many symbolic links`);
    if (target.startsWith('/')) found.length = 0;
    rest.unshift(...partsOf(target));
  }
  return join(root, ...found);
}

/** The path as the node knows it. */
export function pathOnNode(root: string, path: string): string {
  return root === '/' || !path.startsWith(`${root}/`) ? path : path.slice(root.length);
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw fileProblem('look at', path, error);
  }
}
