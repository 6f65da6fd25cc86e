import { createHash } from 'node:crypto';
import { lchown, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import * as z from 'zod';
import { makeDirectory, removeFile, replaceFile, replaceLink } from '../process/durable-file.ts';
import { codeOf, fileProblem } from '../process/file-problem.ts';
import { type PresentFile, readDiskFile } from './disk-file.ts';

/** A user's hosts.toml as it was before we merged it: enough to bring it back byte for byte. */
export interface Original {
  /** The directory, below the certificates directory, in which it stood. */
  readonly directory: string;
  readonly text: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Where it led when it was a symbolic link. */
  readonly link?: string | undefined;
}

export function originalOf(directory: string, { text, access, link }: PresentFile): Original {
  return { directory, text, ...access, link };
}

/** The name under which it is kept: the hash of all that it says, so that saving it twice changes nothing. */
export function idOf(original: Original): string {
  return createHash('sha256').update(format(original)).digest('hex').slice(0, 32);
}

export async function saveOriginal(folder: string, original: Original): Promise<void> {
  await makeDirectory(folder, 0o700);
  // It may hold credentials in a header.
  await replaceFile(pathOf(folder, idOf(original)), format(original), { mode: 0o600 });
}

/**
 * Looks for an original beside those of its certificates directory, and then beside those of the others: a bind
 * mount is the same directory under another path. `undefined` when it is lost, or no longer what was saved.
 */
export async function loadOriginal(folder: string, id: string): Promise<Original | undefined> {
  for (const place of [folder, ...(await otherFolders(folder))]) {
    const found = await loadFrom(place, id);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Where an original is that {@link loadOriginal} finds nowhere as it was saved. */
export async function findDamaged(folder: string, id: string): Promise<string | undefined> {
  for (const place of [folder, ...(await otherFolders(folder))])
    if ((await readDiskFile(pathOf(place, id))).kind === 'file') return pathOf(place, id);
  return undefined;
}

/** Keeps an original beside those of this certificates directory too, when it is only found beside those of another. */
export async function adoptOriginal(folder: string, id: string): Promise<void> {
  if ((await loadFrom(folder, id)) !== undefined) return;
  const found = await loadOriginal(folder, id);
  if (found !== undefined) await saveOriginal(folder, found);
}

async function otherFolders(folder: string): Promise<readonly string[]> {
  const stateDir = dirname(dirname(folder));
  const names = await namesIn(stateDir);
  return names.map((name) => join(stateDir, name, basename(folder))).filter((other) => other !== folder);
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileProblem('list', directory, error);
  }
}

async function loadFrom(folder: string, id: string): Promise<Original | undefined> {
  const file = await readDiskFile(pathOf(folder, id));
  if (file.kind === 'absent') return undefined;
  if (createHash('sha256').update(file.text).digest('hex').slice(0, 32) !== id) return undefined;
  return originalSchema.parse(JSON.parse(file.text));
}

export async function restoreOriginal(path: string, { text, link, mode, uid, gid }: Original): Promise<void> {
  if (link === undefined) return replaceFile(path, text, { mode, uid, gid });
  await replaceLink(path, link);
  try {
    await lchown(path, uid, gid);
  } catch (error) {
    throw fileProblem('give back to its owner', path, error);
  }
}

export async function removeOriginal(folder: string, id: string): Promise<void> {
  await removeFile(pathOf(folder, id));
}

/** Removes the originals of a host directory, except these. */
export async function removeOriginalsOf(
  folder: string,
  directory: string,
  keep: ReadonlySet<string> = new Set(),
): Promise<void> {
  const ids = (await namesIn(folder)).map((name) => basename(name, '.json'));
  for (const id of ids.filter((one) => !keep.has(one)))
    if ((await loadFrom(folder, id))?.directory === directory) await removeOriginal(folder, id);
}

const originalSchema = z.strictObject({
  directory: z.string(),
  text: z.string(),
  mode: z.int().min(0).max(0o7777),
  uid: z.int().min(0),
  gid: z.int().min(0),
  link: z.string().optional(),
});

function format({ directory, text, mode, uid, gid, link }: Original): string {
  return `${JSON.stringify({ directory, mode, uid, gid, link, text }, undefined, 2)}\n`;
}

function pathOf(folder: string, id: string): string {
  return join(folder, `${id}.json`);
}
