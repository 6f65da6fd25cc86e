import { isUtf8 } from 'node:buffer';
import { readdir, stat } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import type { JsonMap } from '@iarna/toml';
import type { Access } from '../process/durable-file.ts';
import { codeOf, fileProblem, messageOf } from '../process/file-problem.ts';
import { readDiskFile } from './disk-file.ts';
import { DEFAULT_DIRECTORY, directoryNames } from './host-directory.ts';
import { EMPTY_HOSTS_FILE, type HostsFile, parseHosts } from './hosts-file.ts';
import { pathOnNode, resolveOnNode } from './node-root.ts';

/** Settings that containerd would go by, and that a new file of ours would hide unless it repeated them. */
export interface Carried {
  readonly file: HostsFile;
  /** Who may read the file that they come from: its headers may be credentials. */
  readonly access?: Access;
}

/** What a file of ours cannot repeat is not hidden behind one. */
export class UnrepeatableError extends Error {}

/**
 * What containerd goes by for a host that has no directory: the hosts.toml of the first directory that is there, or
 * the certificates beside it when it has none. The first is `_default`, then the host's own in each later directory,
 * and the `_default` there (`HostDirFromRoots` of core/remotes/docker/config).
 *
 * @throws UnrepeatableError when its hosts.toml is not one that we understand.
 */
export async function carriedFor(
  host: string,
  { root, certsDir, laterDirs }: { root: string; certsDir: string; laterDirs: readonly string[] },
): Promise<Carried> {
  const own = join(resolve(certsDir), DEFAULT_DIRECTORY);
  if (await isDirectory(own)) return carriedFrom(own, root, `../${DEFAULT_DIRECTORY}/`);
  for (const later of laterDirs)
    for (const name of [...directoryNames(host), DEFAULT_DIRECTORY]) {
      const directory = join(later, name);
      const path = await resolveOnNode(root, directory);
      if (await isDirectory(path)) return carriedFrom(path, root, `${directory}/`);
    }
  return { file: EMPTY_HOSTS_FILE };
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw fileProblem('look at', path, error);
  }
}

/** With a prefix that leads from the file that is made to this directory. */
async function carriedFrom(directory: string, root: string, prefix: string): Promise<Carried> {
  const path = join(directory, 'hosts.toml');
  const found = await readDiskFile(path, root);
  if (found.kind === 'absent' || found.text === '')
    return { file: await certificatesIn(directory, root, prefix) };
  if (!found.isUtf8)
    throw new UnrepeatableError(`${path} is not UTF-8, and a file of ours would hide it. Correct it.`);
  try {
    return { file: relocate(parseHosts(found.text), prefix), access: found.access };
  } catch (error) {
    throw new UnrepeatableError(
      `${path} cannot be read, and a file of ours would hide it: ${messageOf(error)}. Correct it.`,
      { cause: error },
    );
  }
}

/**
 * The certificates that containerd reads from a directory without a hosts.toml (loadCertFiles of
 * core/remotes/docker/config): every `*.crt` is trusted, every `*.cert` is shown, with the `*.key` of its name or,
 * without one, as its own key. They hold for the registry itself, so they stand at the file's root.
 *
 * @throws UnrepeatableError when one has a name that TOML cannot say.
 */
export async function certificatesIn(directory: string, root: string, prefix = ''): Promise<HostsFile> {
  const names = await namesIn(directory);
  const ca = names.filter((name) => name.endsWith('.crt')).map((name) => prefix + name);
  const client: string[][] = [];
  for (const name of names.filter((name) => name.endsWith('.cert'))) {
    const key = `${name.slice(0, -'.cert'.length)}.key`;
    client.push([prefix + name, prefix + ((await isThere(join(directory, key), root)) ? key : name)]);
  }
  const table = { ...(ca.length > 0 ? { ca } : {}), ...(client.length > 0 ? { client } : {}) };
  return { ...EMPTY_HOSTS_FILE, root: table };
}

/** Relative paths are relative to the directory of the file that names them. */
function relocate({ root, hosts }: HostsFile, prefix: string): HostsFile {
  const move = (table: JsonMap): JsonMap => ({
    ...table,
    ...('ca' in table ? { ca: movePaths(table['ca'], prefix) } : {}),
    ...('client' in table ? { client: movePaths(table['client'], prefix) } : {}),
  });
  return { root: move(root), hosts: new Map([...hosts].map(([host, table]) => [host, move(table)])) };
}

type Paths = string | Paths[];

function movePaths(value: unknown, prefix: string): Paths {
  if (Array.isArray(value)) return value.map((inner: unknown) => movePaths(inner, prefix));
  const path = String(value);
  return isAbsolute(path) ? path : prefix + path;
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true, encoding: 'buffer' });
    return entries
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => nameOf(name, directory))
      .toSorted();
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error instanceof UnrepeatableError ? error : fileProblem('list', directory, error);
  }
}

function nameOf(bytes: Buffer, directory: string): string {
  const name = bytes.toString('utf8');
  if (/\.(?:crt|cert|key)$/.test(name) && !isUtf8(bytes))
    throw new UnrepeatableError(
      `${join(directory, name)} has a name that is not UTF-8, so that no hosts.toml can name it. Rename it.`,
    );
  return name;
}

async function isThere(path: string, root: string): Promise<boolean> {
  try {
    await stat(await resolveOnNode(root, pathOnNode(root, path)));
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw fileProblem('look at', path, error);
  }
}
