// The files of a node, below a directory of a test's own.

import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

/** By path of the node; `-> x` is a symbolic link to x, and a path that ends in a slash a directory. */
export type Tree = Readonly<Record<string, string>>;

/** @returns the directory, which goes when the test is over. */
export async function plant(t: TestContext, tree: Tree): Promise<string> {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  for (const [path, text] of Object.entries(tree)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    if (path.endsWith('/')) await mkdir(join(root, path), { recursive: true });
    else if (text.startsWith('-> ')) await symlink(text.slice(3), join(root, path));
    else await writeFile(join(root, path), text);
  }
  return root;
}
