import { constants } from 'node:fs';
import { access, open, readdir, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { codeOf, fileProblem } from '../../process/file-problem.ts';
import { resolveOnNode } from '../node-root.ts';

/** A file of the node, as it was read. */
export interface NodeFile {
  readonly text: string;
  /** When it was last changed, in milliseconds of the epoch. */
  readonly changedAt: number;
}

/**
 * A read-only view of a node's file system, mounted at `root`. Paths are the node's own, symbolic links lead where
 * they lead on the node, and what is not there is `undefined`, `false` or empty.
 */
export interface NodeView {
  readonly root: string;
  /** @throws Error when it is no regular file, too large, or cannot be read. */
  readonly file: (path: string) => Promise<NodeFile | undefined>;
  /** The names in a directory, in the order of their bytes. @throws Error when it cannot be listed. */
  readonly names: (directory: string) => Promise<readonly string[]>;
  readonly exists: (path: string) => Promise<boolean>;
  /** Whether it, or what would have to be made on the way to it, is on a file system that is mounted read-only. */
  readonly isReadOnly: (path: string) => Promise<boolean>;
  /** Where it is for this process. */
  readonly here: (path: string) => Promise<string>;
}

export function viewNode(given = '/'): NodeView {
  const root = resolve(given);
  const here = (path: string): Promise<string> => resolveOnNode(root, path);
  return {
    root,
    here,
    file: async (path) => unlessAbsent(async () => readFile(path, await here(path)), undefined, 'read', path),
    names: async (directory) =>
      unlessAbsent(
        async () => (await readdir(await here(directory))).toSorted(byBytes),
        [],
        'list',
        directory,
      ),
    exists: async (path) =>
      unlessAbsent(
        async () => {
          await stat(await here(path));
          return true;
        },
        false,
        'look at',
        path,
      ),
    isReadOnly: async (path) => isReadOnly(await here(path)),
  };
}

/** More than a list of all packages of a Debian has. */
const MAX_BYTES = 16 * 1024 * 1024;

async function readFile(path: string, here: string): Promise<NodeFile> {
  // A FIFO would keep us waiting for its writer.
  const handle = await open(here, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    if (!found.isFile()) throw new Error(`${path} is no regular file`);
    if (found.size > MAX_BYTES) throw new Error(`${path} has more than ${MAX_BYTES} bytes`);
    return { text: await handle.readFile('utf8'), changedAt: found.mtimeMs };
  } finally {
    await handle.close();
  }
}

async function isReadOnly(here: string): Promise<boolean> {
  try {
    await access(here, constants.W_OK);
    return false;
  } catch (error) {
    if (codeOf(error) === 'EROFS') return true;
    return codeOf(error) === 'ENOENT' && dirname(here) !== here ? isReadOnly(dirname(here)) : false;
  }
}

async function unlessAbsent<T>(look: () => Promise<T>, absent: T, attempt: string, path: string): Promise<T> {
  try {
    return await look();
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return absent;
    throw code === undefined ? error : fileProblem(attempt, path, error);
  }
}

/** Go sorts strings by their bytes. */
export function byBytes(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}
