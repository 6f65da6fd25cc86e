import { type Document, isMap, isNode, isPair, isScalar, LineCounter, parseDocument } from 'yaml';
import type { Problem } from './problem.ts';

export type Path = readonly PropertyKey[];

/** A YAML text as plain values, with the place of each in the file. */
export interface YamlSource {
  /** Whether `value` is what the text says; it may have problems all the same. */
  readonly isReadable: boolean;
  readonly value: unknown;
  readonly problems: readonly Problem[];
  /** Where the key of this path stands; the nearest parent's place when the path does not exist. */
  place(path: Path): { readonly line: number; readonly column: number };
}

/**
 * Reads YAML 1.2, reporting every syntax error. A sequence item that begins with a bare `*` is taken for that
 * very text: `- *` is no YAML, since `*` begins an alias, but configurations of this form are in use.
 */
export function readYaml(text: string): YamlSource {
  const lines = new LineCounter();
  const quoted = quoteBareGlobs(text);
  const strict = parseDocument(quoted, { lineCounter: lines, prettyErrors: false });
  // A key that is there twice is wrong, but hides nothing else that is.
  const isReadable =
    strict.errors.every(({ code }) => code === 'DUPLICATE_KEY') && strict.warnings.length === 0;
  const document = isReadable ? parseDocument(quoted, { uniqueKeys: false }) : strict;
  const problems = [...strict.errors, ...strict.warnings].map((error): Problem => {
    const { line, col } = lines.linePos(error.pos[0]);
    return {
      severity: 'error',
      line,
      column: col,
      key: '',
      message: error.message.replace(/[.\s]+$/, ''),
      remedy: 'Mend the YAML; nothing of this file is in force until it can be read.',
    };
  });
  const value = isReadable ? plainValue(document, problems) : undefined;
  return {
    value,
    isReadable: isReadable && problems.length === strict.errors.length,
    problems,
    place: (path) => place(document, lines, path),
  };
}

function plainValue(document: Document, problems: Problem[]): unknown {
  try {
    return document.toJS();
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    problems.push({
      severity: 'error',
      line: 0,
      column: 0,
      key: '',
      message: error.message,
      remedy: 'Write the values out instead of using aliases.',
    });
    return undefined;
  }
}

/** Keeps every line and column where it is, but for the quotes themselves. */
function quoteBareGlobs(text: string): string {
  return text.replace(
    /^([ \t]*-[ \t]+)(\*[^\s#,\]}"']*)([ \t]*(?:#.*)?)$/gm,
    (line, dash: string, glob: string, rest) =>
      glob.length > 1 && text.includes(`&${glob.slice(1)}`) ? line : `${dash}"${glob}"${String(rest)}`,
  );
}

function place(document: Document, lines: LineCounter, path: Path): { line: number; column: number } {
  let node: unknown = document.contents;
  let offset = 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(step),
      );
      if (pair === undefined) break;
      if (isNode(pair.key) && pair.key.range) offset = pair.key.range[0];
      node = pair.value;
    } else {
      const item: unknown =
        isNode(node) && 'items' in node && Array.isArray(node.items) ? node.items[Number(step)] : undefined;
      if (!isNode(item)) break;
      if (item.range) offset = item.range[0];
      node = item;
    }
  }
  const { line, col } = lines.linePos(offset);
  return { line, column: col };
}
