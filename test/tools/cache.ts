// Built tools outlive the clone: kept in one directory, keyed by all that they were made from, and made
// aside before they get their name, so that neither a killed build nor two at once leave half a tool.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** How one directory of tools is made; the same key promises the same tools. */
export type Recipe = {
  name: string;
  key: string;
  make: (directory: string) => Promise<void>;
};

/** Where the recipe's finished tools are, or will be. */
export function location(recipe: Recipe): string {
  return join(cacheDirectory(), `${recipe.name}-${recipe.key}`);
}

export function isMade(recipe: Recipe): boolean {
  return existsSync(location(recipe));
}

/** The directory of the finished tools, made now if it is not there yet. */
export async function provide(recipe: Recipe): Promise<string> {
  const finished = location(recipe);
  if (isMade(recipe)) return finished;
  const aside = join(cacheDirectory(), `.making-${recipe.name}-${randomBytes(6).toString('hex')}`);
  await mkdir(aside, { recursive: true });
  try {
    await recipe.make(aside);
    await rename(aside, finished).catch((error: unknown) => {
      // Somebody else finished the same recipe first: theirs is as good.
      if (!isMade(recipe)) throw error;
    });
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  return finished;
}

/** What of it is not made yet, one after the other, with one line for each. */
export async function provideAll(recipes: readonly Recipe[]): Promise<void> {
  for (const recipe of recipes) {
    if (isMade(recipe)) continue;
    const started = performance.now();
    await provide(recipe);
    process.stdout.write(`${recipe.name}: made in ${Math.round((performance.now() - started) / 1000)} s\n`);
  }
}

function cacheDirectory(): string {
  const { WEIR_TOOLS } = process.env;
  return WEIR_TOOLS ?? join(homedir(), '.cache', 'weir');
}
