import { basename, join } from 'node:path';
import type { JsonMap } from '@iarna/toml';
import {
  clearLeftovers,
  makeDirectory,
  removeDirectoryWith,
  removeFile,
  removeIfEmpty,
  replaceFile,
} from '../process/durable-file.ts';
import { codeOf, fileProblem, messageOf } from '../process/file-problem.ts';
import { markerAt } from './basis.ts';
import type { Change } from './change.ts';
import { type PresentFile, readDiskFile } from './disk-file.ts';
import { clearLeftoverDirectories, type HostDirectory, openHostDirectory } from './host-directory.ts';
import { parseHosts } from './hosts-file.ts';
import { keepReferring, lostOriginal } from './lost-original.ts';
import { markedDirectories } from './marked-directories.ts';
import { judge, type Marker } from './marker.ts';
import { removeMirrorCa } from './mirror-ca.ts';
import { withNodeLock } from './node-lock.ts';
import { loadOriginal, type Original, removeOriginalsOf, restoreOriginal } from './original.ts';
import { RestoreFailure } from './restore-failure.ts';
import { openState, type Place, type Settled, type State, settle } from './state.ts';
import { type Remainder, withoutMirror } from './without-mirror.ts';

/**
 * Brings every hosts.toml below the certificates directory back to what it was before weir. Harmless where weir
 * never was, and when it is done twice.
 *
 * @throws RestoreFailure with one error for each host that could not be restored: the others are.
 */
export async function rollback(given: Place): Promise<readonly Change[]> {
  const place = await settle(given);
  const { changes, failures } = await withNodeLock(place, async () =>
    restoreOthers({ ...place, state: await openState(place) }, new Set()),
  );
  if (failures.size > 0) throw new RestoreFailure([...failures.values()], changes);
  return changes;
}

/**
 * Takes away what weir kept on a node that it has left, with the files of these names beside it. Whatever somebody
 * may still want, such as the original of a file that could not be restored, stays.
 *
 * @throws Error when something cannot be removed.
 */
export async function forgetPlace(given: Place, beside: readonly string[]): Promise<void> {
  const place = await settle(given);
  await withNodeLock(place, async () => {
    await (await openState(place)).removeIfEmpty();
    for (const name of beside) await removeFile(join(place.stateDir, name));
    await removeIfEmpty(place.stateDir).catch(unlessItStays);
  });
}

/** A mount cannot be removed, nor what is in a directory of somebody else's. Empty as it is, it may stay. */
function unlessItStays(error: unknown): void {
  const code = error instanceof Error ? codeOf(error.cause) : undefined;
  if (!['EBUSY', 'EACCES', 'EPERM', 'EROFS'].includes(code ?? '')) throw error;
}

/** Restores every host directory that has a file of ours, except those to keep. */
export async function restoreOthers(
  work: Settled & { readonly state: State; readonly mirrorCa?: string | undefined },
  keep: ReadonlySet<string>,
): Promise<{ changes: readonly Change[]; failures: ReadonlyMap<string, Error> }> {
  const { state, log, mirrorCa } = work;
  await clearLeftoverDirectories(work.certsDir);
  const names = new Set([...state.names, ...(await markedDirectories(work)).keys()]);
  const changes: Change[] = [];
  const failures = new Map<string, Error>();
  for (const name of names.difference(keep)) {
    try {
      const change = await restoreDirectory(work, name);
      if (change !== undefined) changes.push(change);
    } catch (error) {
      log.debug({ err: error, name }, 'a host directory could not be restored');
      failures.set(name, new Error(`${name}: ${messageOf(error)}`, { cause: error }));
    }
  }
  if (mirrorCa === undefined || keep.size === 0) await removeMirrorCa(work);
  if (state.names.length === 0 && state.directories.length > 0) {
    for (const directory of state.directories.toReversed()) await removeIfEmpty(directory);
    state.forgetDirectories();
    await state.save();
  }
  return { changes, failures };
}

async function restoreDirectory(
  { root, certsDir, state, stateDir }: Settled & { readonly state: State },
  name: string,
): Promise<Change | undefined> {
  const directory = await openHostDirectory(certsDir, name);
  await clearLeftovers(directory.path);
  const written = state.written(name);
  const disk = await readDiskFile(directory.file, root);
  const verdict = disk.kind === 'file' ? judge(disk, written) : undefined;
  const marker = markerAt(verdict, written);
  const original = await originalFor(state, marker);

  let done: Done;
  if (verdict?.kind === 'foreign' || verdict?.kind === 'unparsable') done = undefined;
  else if (original === undefined && typeof marker?.was === 'object') {
    if (disk.kind === 'file') await keepReferring(directory, disk, { marker, verdict, written });
    const { originals } = state;
    const { file } = directory;
    throw await lostOriginal({ stateDir, originals, file }, marker.was.original, disk.kind === 'file');
  } else if (disk.kind === 'file' && verdict?.kind === 'edited')
    done = await restoreEdited(directory, disk, { marker: verdict.marker, written, original });
  else if (original !== undefined) done = await bringBack(directory, original);
  else if (disk.kind === 'file') done = await remove(directory, marker);
  if (marker?.was === 'no directory') await removeIfEmpty(directory.path);
  state.forget(name);
  await state.save();
  if (typeof marker?.was === 'object') await removeOriginalsOf(state.originals, name);
  return done === undefined ? undefined : { host: directory.host, file: directory.file, ...done };
}

type Done = Pick<Change, 'kind' | 'reason'> | undefined;

async function originalFor(state: State, marker: Marker | undefined): Promise<Original | undefined> {
  return typeof marker?.was === 'object' ? loadOriginal(state.originals, marker.was.original) : undefined;
}

async function bringBack(directory: HostDirectory, original: Original): Promise<Done> {
  await makeDirectory(directory.path);
  await restoreOriginal(directory.file, original);
  return { kind: 'restored' };
}

async function remove(directory: HostDirectory, marker: Marker | undefined): Promise<Done> {
  if (marker?.was === 'no directory' && !directory.hasMore)
    await removeDirectoryWith(directory.path, basename(directory.file));
  else await removeFile(directory.file);
  return { kind: 'removed' };
}

/** An edited file is somebody's work: only what is ours goes out of it. */
async function restoreEdited(
  directory: HostDirectory,
  disk: PresentFile,
  known: { marker: Marker; written: string | undefined; original: Original | undefined },
): Promise<Done> {
  const { marker, written, original } = known;
  const before = original === undefined ? {} : rootOf(original, directory);
  const rest = withoutMirror(disk.text, marker.mirror, before);
  const ours = written === undefined ? undefined : withoutMirror(written, marker.mirror, before);
  if (rest.text !== ours?.text && !isBare(rest, ours)) return leaveRest(directory, disk, rest);
  if (original !== undefined) return bringBack(directory, original);
  return remove(directory, marker);
}

function rootOf(original: Original, { file }: HostDirectory): JsonMap {
  try {
    return parseHosts(original.text).root;
  } catch (error) {
    throw fileProblem('read the saved original of', file, error);
  }
}

/** Only a `server`, and not one that somebody set. */
function isBare({ file, hasComments }: Remainder, ours: Remainder | undefined): boolean {
  const { server, ...more } = file.root;
  return (
    file.hosts.size === 0 &&
    !hasComments &&
    Object.keys(more).length === 0 &&
    (server === undefined || ours === undefined || server === ours.file.root['server'])
  );
}

async function leaveRest(directory: HostDirectory, disk: PresentFile, rest: Remainder): Promise<Done> {
  await replaceFile(directory.file, rest.text, disk.access);
  return { kind: 'restored', reason: 'our host was taken out, the rest left as it is' };
}
