import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../process/file-problem.ts';
import type { NodeView } from '../runtimes/node-view.ts';
import { parseRegistries, type RegistriesFile, type RegistryEntry } from './registries-conf.ts';

/** What files other than ours say, by prefix: of several the one that counts. */
export interface UserRegistries {
  /** From registries.conf and the drop-ins that are read before ours. */
  readonly before: ReadonlyMap<string, UserRegistry>;
  /** From drop-ins that are read after ours, and so replace what ours say. */
  readonly after: ReadonlyMap<string, UserRegistry>;
}

export interface UserRegistry {
  readonly file: string;
  readonly entry: RegistryEntry;
}

/** A file that CRI-O cannot read either: it keeps what it read last, and would not start again. */
export class UnreadableRegistriesError extends Error {}

export const MAIN_FILE = '/etc/containers/registries.conf';
export const DROP_INS = '/etc/containers/registries.conf.d';

/**
 * Reads the node's registries.conf and its drop-ins but for ours, in the order of containers/image.
 *
 * @throws UnreadableRegistriesError that names the file and what is wrong with it.
 */
export async function readUserRegistries(view: NodeView, ours: string): Promise<UserRegistries> {
  const before = new Map(await registriesIn(view, MAIN_FILE, 'main'));
  const after = new Map<string, UserRegistry>();
  for (const name of await view.names(DROP_INS)) {
    if (!name.endsWith('.conf') || name === ours || (await isDirectory(view, join(DROP_INS, name)))) continue;
    const found = await registriesIn(view, join(DROP_INS, name), 'drop-in');
    const target = Buffer.compare(Buffer.from(name), Buffer.from(ours)) < 0 ? before : after;
    for (const [prefix, registry] of found) target.set(prefix, registry);
  }
  return { before, after };
}

/** One of them is passed over whatever its name. */
async function isDirectory(view: NodeView, path: string): Promise<boolean> {
  return (await lstat(await view.here(path)).catch(() => undefined))?.isDirectory() === true;
}

async function registriesIn(
  view: NodeView,
  file: string,
  kind: RegistriesFile,
): Promise<readonly (readonly [string, UserRegistry])[]> {
  try {
    const found = await view.file(file);
    if (found === undefined) return [];
    return [...parseRegistries(found.text, kind)].map(([prefix, entry]) => [prefix, { file, entry }]);
  } catch (error) {
    throw new UnreadableRegistriesError(
      `${file} cannot be read, by CRI-O no more than by weir: ${messageOf(error)}. Correct or remove it.`,
      { cause: error },
    );
  }
}
