import { NotTomlError, parseToml } from '../hosts-file.ts';

/** `[a.b]`, or `[[a.b]]`. */
export interface TomlHeader {
  readonly path: readonly string[];
  /** Offsets of its line, with what stands before it there and with its line end. */
  readonly start: number;
  readonly end: number;
}

/** A key with its value. */
export interface TomlValue {
  /** From the root, with the keys of the header and of the inline tables that it stands in. */
  readonly path: readonly string[];
  /** The header that it stands under; `undefined` at the root. */
  readonly header: TomlHeader | undefined;
  readonly isInline: boolean;
  readonly keyStart: number;
  /** Offsets of the value alone. */
  readonly start: number;
  readonly end: number;
}

/** `{ … }` */
export interface TomlInline {
  readonly path: readonly string[];
  /** Behind its bracket. */
  readonly open: number;
  readonly isEmpty: boolean;
}

/** Where a TOML text says what; offsets are of characters. */
export interface TomlPlaces {
  readonly headers: readonly TomlHeader[];
  readonly values: readonly TomlValue[];
  readonly inlines: readonly TomlInline[];
}

const BLANK = /(?:[ \t\r\n\ufeff]|#[^\n]*)*/y;
const SPACE = /[ \t]*/y;
const KEY = /"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[\w-]+/y;
const TEXT = /"""(?:\\[\s\S]|(?!""")[\s\S])*"""+|'''(?:(?!''')[\s\S])*'''+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'/y;
/** Numbers, dates (in which a space may stand for the T), true and false. */
const BARE = /\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]+|[^\s,\]}#]+/y;
const MARK = /[[\]{}=.,]/y;

/**
 * Where a text of TOML says what, in the order in which it says it. What stands in arrays is passed over.
 *
 * @throws NotTomlError when it is not TOML; not all that is not TOML is found.
 */
export function placesOf(text: string): TomlPlaces {
  const headers: TomlHeader[] = [];
  const values: TomlValue[] = [];
  const inlines: TomlInline[] = [];
  let at = 0;
  let header: TomlHeader | undefined;

  const take = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? '';
    at += found.length;
    return found;
  };
  const takeOne = (pattern: RegExp, what: string): string => {
    const found = take(pattern);
    if (found === '') throw new NotTomlError(`not TOML: no ${what} at character ${at}`);
    return found;
  };
  const takeMark = (mark: string): boolean => {
    if (text[at] !== mark) return false;
    takeOne(MARK, mark);
    return true;
  };
  const takeKeys = (): readonly string[] => {
    const keys: string[] = [];
    do {
      take(SPACE);
      keys.push(keyOf(takeOne(KEY, 'key')));
      take(SPACE);
    } while (takeMark('.'));
    return keys;
  };
  const takeHeader = (): void => {
    const start = text.lastIndexOf('\n', at) + 1;
    takeMark('[');
    takeMark('[');
    const path = takeKeys();
    const lineEnd = text.indexOf('\n', at);
    at = lineEnd === -1 ? text.length : lineEnd + 1;
    header = { path, start, end: at };
    headers.push(header);
  };
  const takePair = (table: readonly string[] | undefined, isInline: boolean): void => {
    const keyStart = at;
    const keys = takeKeys();
    if (!takeMark('=')) throw new NotTomlError(`not TOML: no "=" at character ${at}`);
    take(SPACE);
    const start = at;
    const path = table && [...table, ...keys];
    takeValue(path);
    if (path !== undefined) values.push({ path, header, isInline, keyStart, start, end: at });
  };
  const takeValue = (path: readonly string[] | undefined): void => {
    if (takeMark('[')) takeList(']', () => takeValue(undefined));
    else if (takeMark('{')) {
      const open = at;
      const count = takeList('}', () => takePair(path, true));
      if (path !== undefined) inlines.push({ path, open, isEmpty: count === 0 });
    } else if (take(TEXT) === '') takeOne(BARE, 'value');
  };
  const takeList = (end: string, takeEntry: () => void): number => {
    for (let count = 0; ; count++) {
      take(BLANK);
      if (takeMark(end)) return count;
      takeEntry();
      take(BLANK);
      takeMark(',');
    }
  };

  for (take(BLANK); at < text.length; take(BLANK))
    if (text[at] === '[') takeHeader();
    else takePair(header?.path ?? [], false);
  return { headers, values, inlines };
}

function keyOf(raw: string): string {
  return Object.keys(parseToml(`${raw} = 0`))[0] ?? raw;
}
