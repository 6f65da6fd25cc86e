import { lstat, readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseHost } from '../oci/host.ts';
import { isLeftover, removeFile, removeIfEmpty } from '../process/durable-file.ts';
import { codeOf, fileProblem } from '../process/file-problem.ts';

/** A registry host's directory below the certificates directory. */
export interface HostDirectory {
  readonly host: string;
  readonly name: string;
  readonly path: string;
  /** Its hosts.toml. */
  readonly file: string;
  readonly exists: boolean;
  /** Whether anything but a hosts.toml is in it. */
  readonly hasMore: boolean;
}

export const DEFAULT_DIRECTORY = '_default';
const HOSTS_FILE = 'hosts.toml';

/**
 * Where containerd looks first for this host (`hostPaths` and `hostDirectory` of core/remotes/docker/config): `host_port_` when it is
 * there, else `host:port`.
 *
 * @throws Error when the host is none, or its directory is not one of its own.
 */
export async function findHostDirectory(certsDir: string, host: string): Promise<HostDirectory> {
  if (parseHost(host) !== host)
    throw new Error(`"${host}" is no registry host: no file is written for it. Correct the configuration.`);
  const [first, second = first] = directoryNames(host);
  const directory = await openHostDirectory(certsDir, first, host);
  return directory.exists ? directory : openHostDirectory(certsDir, second, host);
}

/** The directories that containerd looks for, in its order. */
export function directoryNames(host: string): readonly [string, ...string[]] {
  // The last colon, even one of an IPv6 address without a port.
  const colon = host.lastIndexOf(':');
  return colon > 0 ? [`${host.slice(0, colon)}_${host.slice(colon + 1)}_`, host] : [host];
}

/** @throws Error when the name leads elsewhere, or what it names is no directory of the host's own. */
export async function openHostDirectory(
  certsDir: string,
  name: string,
  host = hostOf(name),
): Promise<HostDirectory> {
  const path = join(resolve(certsDir), name);
  if (!isDirectoryName(name) || dirname(path) !== resolve(certsDir))
    throw new Error(
      `"${name}" leads out of ${certsDir}: no file is written there. Correct the configuration.`,
    );
  const kind = await kindOf(path);
  if (kind === 'link')
    throw new Error(
      `${path} is a symbolic link, and weir does not write where it leads: other hosts may share that place. Make it a directory.`,
    );
  if (kind === 'other') throw new Error(`${path} is no directory. Move it away.`);
  const exists = kind === 'directory';
  const names = exists ? await readdir(path).catch(rethrow('list', path)) : [];
  const hasMore = names.some((entry) => entry !== HOSTS_FILE && !isLeftover(entry));
  return { host, name, path, file: join(path, HOSTS_FILE), exists, hasMore };
}

/** Clears the directories that were not yet, or no longer, a host's when we were cut off. */
export async function clearLeftoverDirectories(certsDir: string): Promise<void> {
  for (const name of (await listDirectories(certsDir)).filter(isLeftover)) {
    const path = join(certsDir, name);
    for (const entry of await readdir(path).catch(rethrow('list', path)))
      if (entry === HOSTS_FILE || isLeftover(entry)) await removeFile(join(path, entry));
    await removeIfEmpty(path);
  }
}

/** The names of all host directories; none when there is no certificates directory. */
export async function listHostDirectories(certsDir: string): Promise<readonly string[]> {
  return (await listDirectories(certsDir)).filter((name) => !isLeftover(name));
}

async function listDirectories(certsDir: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(certsDir, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileProblem('list', certsDir, error);
  }
}

export function isDirectoryName(name: string): boolean {
  return /^[^/\0]+$/.test(name) && name !== '.' && name !== '..';
}

function hostOf(name: string): string {
  return name.replace(/_([^_]*)_$/, ':$1');
}

async function kindOf(path: string): Promise<'absent' | 'directory' | 'link' | 'other'> {
  try {
    const found = await lstat(path);
    if (found.isSymbolicLink()) return 'link';
    return found.isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 'absent';
    throw fileProblem('look at', path, error);
  }
}

function rethrow(attempt: string, path: string): (error: unknown) => never {
  return (error) => {
    throw fileProblem(attempt, path, error);
  };
}
