import { isTable, NotTomlError, parseToml } from '../hosts-file.ts';

/** The value at a path of keys. */
export function valueAt(table: unknown, keys: readonly string[]): unknown {
  let value: unknown = table;
  for (const key of keys) value = isTable(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

/**
 * The line, counted from 1, on which a TOML text gives the value at a path of keys; `undefined` when it does not, or
 * not within one line. TOML gives every value once: it is the first line up to which the text has it.
 */
export function lineOf(text: string, keys: readonly string[]): number | undefined {
  const last = keys.at(-1);
  if (last === undefined) return undefined;
  const lines = text.split('\n');
  for (const [index, line] of lines.entries())
    if (line.includes(last) && hasValue(lines.slice(0, index + 1).join('\n'), keys)) return index + 1;
  return undefined;
}

function hasValue(text: string, keys: readonly string[]): boolean {
  try {
    return valueAt(parseToml(text), keys) !== undefined;
  } catch (error) {
    // The text ends amid an array, or a string of several lines.
    if (error instanceof NotTomlError) return false;
    throw error;
  }
}
