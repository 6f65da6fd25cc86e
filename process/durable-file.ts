import { randomBytes } from 'node:crypto';
import { chmod, lstat, mkdir, open, readdir, rename, rmdir, symlink, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { codeOf, fileProblem } from './file-problem.ts';

/** Who may do what with a file. */
export interface Access {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Replaces a file in one step: whoever looks, now or after a power cut, sees the old text or the new one. */
export async function replaceFile(path: string, text: string, access: Partial<Access> = {}): Promise<void> {
  await replace('write', path, async (aside) => {
    const handle = await open(aside, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      const { uid, gid } = await handle.stat();
      if ((access.uid ?? uid) !== uid || (access.gid ?? gid) !== gid)
        await handle.chown(access.uid ?? uid, access.gid ?? gid);
      // After the owner, whose change clears some bits.
      await handle.chmod(access.mode ?? 0o644);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

export async function replaceLink(path: string, target: string): Promise<void> {
  await replace('link', path, (aside) => symlink(target, aside));
}

export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
    await syncDirectory(dirname(path));
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw fileProblem('remove', path, error);
  }
}

/** Removes a directory that has nothing in it. */
export async function removeIfEmpty(path: string): Promise<void> {
  try {
    await rmdir(path);
    await syncDirectory(dirname(path));
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(codeOf(error) ?? ''))
      throw fileProblem('remove', path, error);
  }
}

/** The directories that {@link makeDirectory} would make for this path, outermost first. */
export async function missingDirectories(path: string): Promise<readonly string[]> {
  try {
    await lstat(path);
    return [];
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw fileProblem('look at', path, error);
    return [...(await missingDirectories(dirname(path))), path];
  }
}

export async function makeDirectory(path: string, mode = 0o755): Promise<void> {
  for (const missing of await missingDirectories(path)) {
    try {
      await mkdir(missing);
      // Past the process's umask.
      await chmod(missing, mode);
      await syncDirectory(dirname(missing));
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw fileProblem('make the directory', missing, error);
    }
  }
}

/**
 * Makes a directory with one file in it, in one step: whoever looks finds no directory, or the file in it. What is
 * cut off is left beside it.
 */
export async function makeDirectoryWith(
  path: string,
  name: string,
  text: string,
  access: Partial<Access> = {},
): Promise<void> {
  await makeDirectory(dirname(path));
  const aside = asideOf(path);
  try {
    await makeDirectory(aside);
    await replaceFile(join(aside, name), text, access);
    await rename(aside, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await removeFile(join(aside, name));
    await removeIfEmpty(aside);
    throw fileProblem('write', join(path, name), error instanceof Error ? (error.cause ?? error) : error);
  }
}

/** Removes a directory with nothing but this file in it, in one step. What is cut off is left beside it. */
export async function removeDirectoryWith(path: string, name: string): Promise<void> {
  const aside = asideOf(path);
  try {
    await rename(path, aside);
  } catch (error) {
    throw fileProblem('remove', path, error);
  }
  await removeFile(join(aside, name));
  await removeIfEmpty(aside);
}

/** Whether a directory entry is what a write of ours left when it was cut off. */
export function isLeftover(name: string): boolean {
  return ASIDE.test(name);
}

/** Removes what writes of ours left in a directory when they were cut off; one that is not there has none. */
export async function clearLeftovers(directory: string): Promise<void> {
  await removeFilesIn(directory, isLeftover);
}

/** Removes the files of a directory whose names are such; one that is not there has none. */
export async function removeFilesIn(directory: string, isOne: (name: string) => boolean): Promise<void> {
  try {
    for (const name of await readdir(directory)) if (isOne(name)) await removeFile(join(directory, name));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw codeOf(error) === undefined ? error : fileProblem('list', directory, error);
  }
}

const ASIDE = /^\.weir-[0-9a-f]{12}\.aside$/;

async function replace(attempt: string, path: string, make: (aside: string) => Promise<void>): Promise<void> {
  // In the same directory: renaming is one step only inside a file system.
  const aside = asideOf(path);
  try {
    await make(aside);
    await rename(aside, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    const problem = fileProblem(attempt, path, error);
    await removeFile(aside).catch((another: unknown) => {
      throw new AggregateError([problem, another], problem.message, { cause: error });
    });
    throw problem;
  }
}

function asideOf(path: string): string {
  return join(dirname(path), `.weir-${randomBytes(6).toString('hex')}.aside`);
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems cannot, and need not.
    if (codeOf(error) !== 'EINVAL') throw error;
  } finally {
    await handle.close();
  }
}
