import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type ConfigVersion, readVersion } from '../config/version.ts';
import { makeDirectory, replaceFile } from '../process/durable-file.ts';

/** In the directory where a program keeps its state: the last configuration that could be read. */
export const LAST_GOOD_FILE = 'last-good-config.yaml';

const START = '# The last good configuration of ';

/** @param file of which it is; `undefined`: of the ConfigMap. */
export async function keepLastGood(path: string, { text }: ConfigVersion, file?: string): Promise<void> {
  await makeDirectory(dirname(path));
  await replaceFile(path, (file === undefined ? '' : headOf(file)) + text);
}

/**
 * `undefined`: there is none of that file. Another one's, kept by another command in the same directory, is not asked for.
 *
 * @throws ConfigError when it is refused, Error when it cannot be read.
 */
export async function readLastGood(path: string, file?: string): Promise<ConfigVersion | undefined> {
  if (!existsSync(path)) return undefined;
  const text = await readFile(path, 'utf8');
  const head = file === undefined ? '' : headOf(file);
  const isOurs = file === undefined ? !text.startsWith(START) : text.startsWith(head);
  return isOurs ? readVersion(text.slice(head.length), path) : undefined;
}

function headOf(file: string): string {
  return `${START}${JSON.stringify(resolve(file))}\n`;
}
