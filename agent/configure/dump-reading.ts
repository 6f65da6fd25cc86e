import { isDeepStrictEqual } from 'node:util';
import type { JsonMap } from '@iarna/toml';
import { isTable, parseToml } from '../hosts-file.ts';
import { ConfigProblem, parseConfigFile } from '../runtimes/containerd-files.ts';
import { type RegistrySettings, readRegistrySettings } from '../runtimes/containerd-registry.ts';

/** Where the files that a configuration was made of are listed, in no order. */
const FILES = 'imports';
/** The plugins that read `config_path` for CRI, in 1.x and in 2.x. */
const CRI = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images'];

/**
 * How what containerd makes of its files (`config dump`) is another reading of them than weir's, or cannot be understood;
 * `undefined` when both are the same.
 */
export function differenceOfReadings(dump: string, files: RegistrySettings): string | undefined {
  const read = settingsOf(dump);
  if (typeof read === 'string') return read;
  const own = sayings(files);
  for (const [what, value] of sayings(read)) {
    const other = own.get(what) ?? '';
    if (value !== other) return `of ${what}, containerd reads ${said(value)}, and weir ${said(other)}`;
  }
  return undefined;
}

/**
 * How containerd's configuration with an edit (`config dump`) is another one than it should be: as before, with this
 * `config_path`. It is `undefined` when it is so.
 *
 * @param before has been understood; where it is not known, the path is all that is looked at.
 */
export function differenceOfEdit(
  before: string | undefined,
  after: string,
  directory: string,
): string | undefined {
  const read = settingsOf(after);
  if (typeof read === 'string') return read;
  const path = read.configPath?.value ?? '';
  if (path !== directory) return `containerd reads config_path "${path}" with it`;
  if (before === undefined) return undefined;
  const keys = firstDifference(restOf(before), restOf(after));
  return keys && `containerd reads another ${keys.join('.')} with it`;
}

/** What it says of registries, or why it cannot be understood. */
function settingsOf(dump: string): RegistrySettings | string {
  try {
    const file = parseConfigFile('config dump', { text: dump, changedAt: 0 });
    // It is in the form of the program that said it, whichever runs just now.
    return readRegistrySettings([{ ...file, imports: [] }], undefined);
  } catch (error) {
    if (!(error instanceof ConfigProblem)) throw error;
    return `what containerd says cannot be understood (${error.message})`;
  }
}

function sayings(settings: RegistrySettings): ReadonlyMap<string, string> {
  const { configPath, conflicting, localPull, disabled, hasMirrors } = settings;
  return new Map([
    ['config_path', configPath?.value ?? ''],
    ['what excludes config_path', conflicting?.value ?? ''],
    ['what keeps pulls from the transfer service', localPull?.value ?? ''],
    ['disabled_plugins', disabled?.value ?? ''],
    ['mirrors', hasMirrors ? 'some' : ''],
  ]);
}

function said(value: string): string {
  return value === '' ? 'nothing' : `"${value}"`;
}

function restOf(dump: string): JsonMap {
  const { [FILES]: _, ...table } = parseToml(dump);
  const plugins = isTable(table['plugins']) ? table['plugins'] : {};
  const without = CRI.flatMap((name) => {
    const plugin = plugins[name];
    if (!isTable(plugin) || !isTable(plugin['registry'])) return [];
    const { config_path: __, ...registry } = plugin['registry'];
    return [[name, { ...plugin, registry }] as const];
  });
  return { ...table, plugins: { ...plugins, ...Object.fromEntries(without) } };
}

function firstDifference(one: unknown, other: unknown): readonly string[] | undefined {
  if (isDeepStrictEqual(one, other)) return undefined;
  if (!isTable(one) || !isTable(other)) return [];
  for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
    const rest = firstDifference(one[key], other[key]);
    if (rest !== undefined) return [key, ...rest];
  }
  return [];
}
