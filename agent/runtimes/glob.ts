import { basename, dirname, join } from 'node:path';
import type { NodeView } from './node-view.ts';

/**
 * The paths that a pattern of containerd's `imports` names, in the order in which containerd reads them: Go's
 * `filepath.Glob`. A `*` also takes names that begin with a dot.
 *
 * @throws Error when the pattern is none, or a directory cannot be listed.
 */
export async function glob(view: NodeView, pattern: string): Promise<readonly string[]> {
  if (!/[*?[\\]/.test(pattern)) return (await view.exists(pattern)) ? [pattern] : [];
  const matches = matcher(basename(pattern));
  const directories = await glob(view, dirname(pattern));
  const found: string[] = [];
  for (const directory of directories)
    for (const name of await view.names(directory)) if (matches(name)) found.push(join(directory, name));
  return found;
}

function matcher(pattern: string): (name: string) => boolean {
  const source = pattern.replaceAll(
    /\\(.)|\[(\^?)((?:\\.|[^\]\\])+)\]|[\s\S]/gu,
    (text: string, escaped?: string, not?: string, set?: string) => {
      if (escaped !== undefined) return literal(escaped);
      if (set !== undefined) return `[${not ?? ''}${set.replaceAll(/[[&]/g, String.raw`\$&`)}]`;
      if (text === '*') return '[^/]*';
      return text === '?' ? '[^/]' : literal(text);
    },
  );
  try {
    const expression = new RegExp(`^${source}$`, 'u');
    return (name) => expression.test(name);
  } catch (error) {
    throw new Error(`"${pattern}" is no pattern of file names`, { cause: error });
  }
}

function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`);
}
