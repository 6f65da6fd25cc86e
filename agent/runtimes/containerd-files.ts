import { dirname, isAbsolute, join, normalize } from 'node:path';
import type { JsonMap } from '@iarna/toml';
import * as z from 'zod';
import { messageOf } from '../../process/file-problem.ts';
import { isTable, NotTomlError, parseToml } from '../hosts-file.ts';
import { glob } from './glob.ts';
import type { NodeFile, NodeView } from './node-view.ts';
import { lineOf } from './toml-line.ts';
import { isAtLeast, type Version } from './version.ts';

/** One of containerd's configuration files. */
export interface ConfigFile {
  readonly path: string;
  readonly text: string;
  /** When it was last changed, in milliseconds of the epoch. */
  readonly changedAt: number;
  /** The version of the configuration's form: 0 when it does not say. */
  readonly version: number;
  readonly plugins: JsonMap;
  readonly disabledPlugins: readonly string[];
  readonly imports: readonly string[];
}

/** Why containerd would not start, or its CRI plugin not load, with these files. */
export class ConfigProblem extends Error {}

/**
 * containerd's configuration files in the order in which it reads them: the main one, then what each imports, level
 * by level (`LoadConfig` of containerd's server/config). None when there is no main file.
 *
 * @throws ConfigProblem when one cannot be read, as containerd would not start then.
 */
export async function readConfigFiles(
  view: NodeView,
  main: string,
  version: Version | undefined,
): Promise<readonly ConfigFile[]> {
  if (!(await view.exists(main))) return [];
  const files = new Map<string, ConfigFile>();
  const pending = [main];
  for (let path = pending.shift(); path !== undefined; path = pending.shift()) {
    if (files.has(path)) continue;
    const file = await readConfigFile(view, path, main);
    files.set(path, file);
    pending.push(...(await resolveImports(view, file, version)));
    if (files.size + pending.length > MAX_FILES)
      throw new ConfigProblem(`${main} imports more than ${MAX_FILES} files`);
  }
  return [...files.values()];
}

const MAX_FILES = 1000;

async function readConfigFile(view: NodeView, path: string, main: string): Promise<ConfigFile> {
  const found = await view.file(path).catch((error: unknown) => {
    throw new ConfigProblem(messageOf(error), { cause: error });
  });
  if (found === undefined) throw new ConfigProblem(`${main} imports ${path}, which is not there`);
  return parseConfigFile(path, found);
}

/** @throws ConfigProblem when it is none, with the line. */
export function parseConfigFile(path: string, found: NodeFile): ConfigFile {
  const parsed = schema.safeParse(parse(path, found.text));
  if (parsed.success) {
    const { version, plugins, disabled_plugins: disabledPlugins, imports } = parsed.data;
    return { path, ...found, version, plugins, disabledPlugins, imports };
  }
  const issue = parsed.error.issues[0];
  const keys = (issue?.path ?? []).map(String);
  const line = lineOf(found.text, keys);
  throw new ConfigProblem(
    `${path}${line === undefined ? '' : `:${line}`}: ${keys.join('.')}: ${issue?.message ?? 'not allowed'}`,
  );
}

function parse(path: string, text: string): JsonMap {
  try {
    return parseToml(text);
  } catch (error) {
    if (!(error instanceof NotTomlError)) throw error;
    // "… at row 3, col 4, pos 20:"
    const [, row, rest = ''] = /^(?:.*) at row (\d+), col \d+, pos \d+(.*)$/.exec(error.message) ?? [];
    const what = error.message.replace(/ at row \d+, col \d+, pos \d+.*$/, '') + rest.replace(/:$/, '');
    throw new ConfigProblem(`${path}${row === undefined ? '' : `:${row}`}: ${what}`, { cause: error });
  }
}

/** 1.6 finds a relative pattern below the directory in which it was started, which is `/` for a service of systemd. */
async function resolveImports(
  view: NodeView,
  { path, imports }: ConfigFile,
  version: Version | undefined,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const given of imports) {
    const isPattern = given.includes('*');
    const isBelowRoot = isPattern && version !== undefined && !isAtLeast(version, [1, 7]);
    const file = normalize(isAbsolute(given) ? given : join(isBelowRoot ? '/' : dirname(path), given));
    if (!isPattern) found.push(file);
    else
      found.push(
        ...(await glob(view, file).catch((error: unknown) => {
          throw new ConfigProblem(`${path}: imports: ${messageOf(error)}`, { cause: error });
        })),
      );
  }
  return found;
}

const schema = z.object({
  version: z.coerce.number().int().min(0).default(0),
  plugins: z.custom<JsonMap>(isTable, 'no table').default({}),
  disabled_plugins: z.array(z.string()).default([]),
  imports: z.array(z.string()).default([]),
});
