// What the programs of a cluster wrote: for who wants to know why something did not work.

import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';

/** The last lines of each, under its path below the cluster's directory. */
export async function lastLines(directory: string, count: number): Promise<string> {
  const files = globSync(join(directory, '*/log/*.log')).toSorted();
  const texts = await Promise.all(
    files.map(async (file) => {
      const lines = (await readFile(file, 'utf8')).trimEnd().split('\n').slice(-count);
      return `── ${relative(directory, file)}\n${lines.join('\n')}`;
    }),
  );
  return texts.join('\n');
}
