import { dirname } from 'node:path';
import { clearLeftovers, removeFile, removeIfEmpty, replaceFile } from '../../process/durable-file.ts';
import { NotTomlError, parseToml } from '../hosts-file.ts';
import { resolveOnNode } from '../node-root.ts';
import { viewNode } from '../runtimes/node-view.ts';
import { valueAt } from '../runtimes/toml-line.ts';
import { type Entry, hashOf } from './entry.ts';
import { readWithAccess } from './file-access.ts';
import type { Journal } from './journal.ts';
import { unsetString } from './toml-edit.ts';

/**
 * - `as it was`: byte for byte, or not there, as it had not been
 * - `taken out`: it was changed since, and only our value went out of it
 * - `unneeded`: it was so already, byte for byte
 * - `left`: it says something else of its own by now, or is gone
 */
export type PutBack = 'as it was' | 'taken out' | 'unneeded' | 'left';

/**
 * Brings the file that weir edited back to what it was.
 *
 * @throws Error when it cannot be read or written.
 */
export async function putBack(root: string, journal: Journal, entry: Entry): Promise<PutBack> {
  const path = await resolveOnNode(root, entry.file);
  await clearLeftovers(dirname(path));
  const now = (await viewNode(root).file(entry.file))?.text;
  if (now === undefined || hashOf(now) === entry.original?.hash) {
    await removeDirectories(root, entry);
    return now === undefined && entry.original !== null ? 'left' : 'unneeded';
  }
  const original = await journal.original();
  if (now === entry.after) {
    if (original === undefined || entry.original === null) {
      await removeFile(path);
      await removeDirectories(root, entry);
    } else await replaceFile(path, original, entry.original);
    return 'as it was';
  }
  const rest = without(now, entry, original);
  if (rest === undefined) return 'left';
  await replaceFile(path, rest, (await readWithAccess(path)).access);
  return 'taken out';
}

function without(text: string, { keys, directory }: Entry, original: string | undefined): string | undefined {
  try {
    const was = original === undefined ? undefined : valueAt(parseToml(original), keys);
    return unsetString(text, keys, directory, was === '' ? '' : undefined);
  } catch (error) {
    // Whoever changed it is not done, or has to correct it: it is theirs.
    if (error instanceof NotTomlError) return undefined;
    throw error;
  }
}

async function removeDirectories(root: string, { directories }: Entry): Promise<void> {
  for (const directory of directories.toReversed()) await removeIfEmpty(await resolveOnNode(root, directory));
}
