import { isUtf8 } from 'node:buffer';
import {
  chmod,
  copyFile,
  lchown,
  lstat,
  mkdir,
  readdir,
  readlink,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { missingDirectories } from '../../process/durable-file.ts';
import { codeOf, fileProblem } from '../../process/file-problem.ts';
import { LinkLoopError, pathOnNode, resolveOnNode } from '../node-root.ts';

/**
 * Copies a directory of a node, if it is there, to the same place below another root, with what its links lead to:
 * what looks at it or changes it there finds what it would find on the node.
 *
 * @throws Error when something cannot be read.
 */
export async function shadow(root: string, directory: string, copy: string): Promise<void> {
  const here = await resolveOnNode(root, directory);
  const path = pathOnNode(root, here);
  // What is missing on the way to it is for whoever looks at the copy to make.
  const [first] = await missingDirectories(here);
  await mkdir(join(copy, dirname(pathOnNode(root, first ?? here))), { recursive: true });
  if (directory !== path) await linkDirectory(directory, path, copy);
  if (first === undefined) await copyEntry({ root, copy, path });
}

interface Entry {
  readonly root: string;
  readonly copy: string;
  /** As the node knows it, with no link on the way. */
  readonly path: string;
}

/** A directory that is reached by a link is reached by one in the copy. */
async function linkDirectory(given: string, real: string, copy: string): Promise<void> {
  await mkdir(dirname(join(copy, given)), { recursive: true });
  await symlink(real, join(copy, given)).catch(unless('EEXIST'));
}

async function copyEntry(entry: Entry): Promise<void> {
  const { root, copy, path } = entry;
  const [from, to] = [join(root, path), join(copy, path)];
  try {
    const found = await lstat(from);
    if (found.isSymbolicLink()) await copyLink(entry, await readlink(from));
    else if (found.isDirectory()) {
      await mkdir(to, { recursive: true });
      for (const name of await readdir(from, { encoding: 'buffer' })) await copyNamed(entry, name);
    } else if (found.isFile()) await copyFile(from, to);
    // What is neither is refused wherever it is looked at, and so is a directory where a file should be.
    else await mkdir(to, { recursive: true });
    // Only root can give files away; others see what they would write themselves.
    await lchown(to, found.uid, found.gid).catch(unless('EPERM'));
    if (!found.isSymbolicLink()) await chmod(to, found.mode & 0o7777);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw fileProblem('copy', from, error);
  }
}

async function copyNamed(entry: Entry, name: Buffer): Promise<void> {
  if (isUtf8(name)) return copyEntry({ ...entry, path: join(entry.path, name.toString('utf8')) });
  // Nothing reads such a file, but that it is there may count.
  const directory = join(entry.copy, entry.path, '/');
  await writeFile(Buffer.concat([Buffer.from(directory), name]), '');
}

async function copyLink({ root, copy, path }: Entry, target: string): Promise<void> {
  await symlink(target, join(copy, path)).catch(unless('EEXIST'));
  const onNode = target.startsWith('/') ? target : join(dirname(path), target);
  const from = await leadsTo(root, onNode);
  if (from === undefined) return;
  const to = await resolveOnNode(copy, onNode);
  const isFile = await lstat(from).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile) return;
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
  await chmod(to, (await lstat(from)).mode & 0o7777);
}

/** `undefined`: nowhere. Whoever looks at the link in the copy finds that out as on the node. */
async function leadsTo(root: string, onNode: string): Promise<string | undefined> {
  try {
    return await resolveOnNode(root, onNode);
  } catch (error) {
    const throughFile = error instanceof Error && codeOf(error.cause) === 'ENOTDIR';
    if (throughFile || error instanceof LinkLoopError) return undefined;
    throw error;
  }
}

function unless(code: string): (error: unknown) => void {
  return (error) => {
    if (codeOf(error) !== code) throw error;
  };
}
