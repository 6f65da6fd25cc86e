import { isDeepStrictEqual } from 'node:util';
import { isTable, NotTomlError, parseToml } from '../hosts-file.ts';
import { placesOf, type TomlPlaces } from './toml-places.ts';

type Keys = readonly string[];

/**
 * The text with this string at a path of keys, which has an empty one there or none. A line is added, or a value
 * changed: everything else stays as it is, comments, order and line ends.
 *
 * @returns `undefined` when there is no such edit after which the text says nothing else than before.
 * @throws NotTomlError when the text is not TOML.
 */
export function setString(text: string, keys: Keys, value: string): string | undefined {
  const before = plain(parseToml(text));
  const found = stringAt(before, keys);
  if (found === value) return text;
  if (found !== undefined && found !== '') return undefined;
  const wanted = withValue(before, keys, value);
  return editsOf(text, keys, value).find((edited) => says(edited, wanted));
}

/**
 * The text without this string at a path of keys: its line goes. Where it was an empty one before, and in an inline
 * table, the string is emptied.
 *
 * @returns `undefined` when the text does not say it, or not where it can be taken out alone.
 * @throws NotTomlError when the text is not TOML.
 */
export function unsetString(
  text: string,
  keys: Keys,
  value: string,
  was: '' | undefined,
): string | undefined {
  const before = plain(parseToml(text));
  const place = placesOf(text).values.find(({ path }) => isDeepStrictEqual(path, keys));
  if (place === undefined || stringAt(before, keys) !== value) return undefined;
  const start = lineStart(text, place.keyStart);
  const end = lineEnd(text, place.end);
  const line = text.slice(0, start) + text.slice(end);
  if (was === undefined && says(line, withoutValue(before, keys))) return line;
  const emptied = `${text.slice(0, place.start)}""${text.slice(place.end)}`;
  return says(emptied, withValue(before, keys, '')) ? emptied : undefined;
}

/** Edits that may do, the plainest first: which of them does is found out by reading them. */
function editsOf(text: string, keys: Keys, value: string): readonly string[] {
  const places = placesOf(text);
  return [
    ...changedValue(text, places, keys, value),
    ...inInlineTable(text, places, keys, value),
    ...underHeader(text, places, keys, value),
    ...besideDottedKey(text, places, keys, value),
    ...newHeader(text, places, keys, value),
  ];
}

function changedValue(text: string, { values }: TomlPlaces, keys: Keys, value: string): readonly string[] {
  return values
    .filter(({ path }) => isDeepStrictEqual(path, keys))
    .map(({ start, end }) => {
      const isLiteral = text[start] === "'" && !value.includes("'");
      return text.slice(0, start) + (isLiteral ? `'${value}'` : JSON.stringify(value)) + text.slice(end);
    });
}

function inInlineTable(text: string, { inlines }: TomlPlaces, keys: Keys, value: string): readonly string[] {
  return inlines
    .filter(({ path }) => path.length < keys.length && isBelow(keys, path))
    .toSorted((one, other) => other.path.length - one.path.length)
    .map(({ path, open, isEmpty }) => {
      const [key = '', ...outer] = keys.slice(path.length).toReversed();
      const pair = outer.reduce(
        (inner, name) => `${formatKey(text, name)} = { ${inner} }`,
        `${formatKey(text, key)} = ${JSON.stringify(value)}`,
      );
      return insert(text, open, isEmpty ? ` ${pair} ` : ` ${pair},`);
    });
}

function underHeader(
  text: string,
  { headers, values }: TomlPlaces,
  keys: Keys,
  value: string,
): readonly string[] {
  const header = headers.find(({ path }) => isDeepStrictEqual(path, keys.slice(0, -1)));
  if (header === undefined) return [];
  const first = values.find((pair) => pair.header === header && !pair.isInline);
  const indent =
    first === undefined
      ? `${indentOf(text, header.start)}  `
      : indentOf(text, lineStart(text, first.keyStart));
  const line = `${indent}${formatKey(text, keys.at(-1) ?? '')} = ${JSON.stringify(value)}`;
  return [insertLines(text, header.end, [line])];
}

/** A table that is made by keys such as `registry.x = 1` has no header, and must not get one. */
function besideDottedKey(text: string, { values }: TomlPlaces, keys: Keys, value: string): readonly string[] {
  const edits: string[] = [];
  for (let depth = keys.length - 1; depth > 0; depth--) {
    const table = keys.slice(0, depth);
    const pair = values.find(
      ({ path, header, isInline }) =>
        !isInline && (header?.path.length ?? 0) < depth && path.length > depth && isBelow(path, table),
    );
    if (pair === undefined) continue;
    const at = lineStart(text, pair.keyStart);
    const rest = keys.slice(pair.header?.path.length ?? 0);
    const dotted = rest.map((key) => formatKey(text, key)).join('.');
    edits.push(insertLines(text, at, [`${indentOf(text, at)}${dotted} = ${JSON.stringify(value)}`]));
  }
  return edits;
}

function newHeader(
  text: string,
  { headers, values }: TomlPlaces,
  keys: Keys,
  value: string,
): readonly string[] {
  const table = keys.slice(0, -1);
  const name = table.map((key) => formatKey(text, key)).join('.');
  const line = `${formatKey(text, keys.at(-1) ?? '')} = ${JSON.stringify(value)}`;
  const edits: string[] = [];
  // A table after those below it is TOML as well; not every reader thinks so.
  const below = headers.find(({ path }) => path.length > table.length && isBelow(path, table));
  if (below !== undefined) {
    const indent = indentOf(text, below.start).slice(0, -2);
    edits.push(insertLines(text, below.start, [`${indent}[${name}]`, `${indent}  ${line}`, '']));
  }
  const parent = headers.find(({ path }) => isDeepStrictEqual(path, table.slice(0, -1)));
  if (parent !== undefined) {
    const last = values.findLast((pair) => pair.header === parent);
    const at = last === undefined ? parent.end : lineEnd(text, last.end);
    const own = indentOf(text, parent.start);
    const indent = own === '' ? '' : `${own}  `;
    edits.push(insertLines(text, at, ['', `${indent}[${name}]`, `${indent}  ${line}`]));
  }
  const gap = text === '' ? [] : [''];
  edits.push(insertLines(text, text.length, [...gap, `[${name}]`, `  ${line}`]));
  return edits;
}

/** Whether it is that table, or stands in it. */
function isBelow(path: Keys, table: Keys): boolean {
  return table.every((key, index) => path[index] === key);
}

/** Quoted as the text quotes other names of plugins. */
function formatKey(text: string, key: string): string {
  if (/^[\w-]+$/.test(key)) return key;
  return /^[ \t]*\[plugins\.'/m.test(text) && !key.includes("'") ? `'${key}'` : JSON.stringify(key);
}

function insert(text: string, at: number, added: string): string {
  return text.slice(0, at) + added + text.slice(at);
}

function insertLines(text: string, at: number, lines: readonly string[]): string {
  const eol = text.includes('\r\n') ? '\r\n' : '\n';
  const isAmidLine = at > 0 && text[at - 1] !== '\n';
  return insert(text, at, (isAmidLine ? eol : '') + lines.map((line) => line + eol).join(''));
}

function lineStart(text: string, at: number): number {
  return text.lastIndexOf('\n', at - 1) + 1;
}

/** Behind the line end, which the last line may not have. */
function lineEnd(text: string, at: number): number {
  const end = text.indexOf('\n', at);
  return end === -1 ? text.length : end + 1;
}

function indentOf(text: string, start: number): string {
  return /^[ \t]*/.exec(text.slice(start))?.[0] ?? '';
}

function says(text: string, wanted: unknown): boolean {
  try {
    return isDeepStrictEqual(plain(parseToml(text)), wanted);
  } catch (error) {
    if (error instanceof NotTomlError) return false;
    throw error;
  }
}

/** The parser's tables know more of themselves than what they say. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  return isTable(value)
    ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
    : value;
}

function stringAt(table: unknown, keys: Keys): unknown {
  return keys.reduce<unknown>((value, key) => (isTable(value) ? value[key] : undefined), table);
}

function withValue(table: unknown, [key = '', ...rest]: Keys, value: string): unknown {
  const known = isTable(table) ? table : {};
  return { ...known, [key]: rest.length === 0 ? value : withValue(known[key], rest, value) };
}

function withoutValue(table: unknown, [key = '', ...rest]: Keys): unknown {
  if (!isTable(table)) return table;
  if (rest.length > 0) return { ...table, [key]: withoutValue(table[key], rest) };
  const { [key]: _, ...others } = table;
  return others;
}
