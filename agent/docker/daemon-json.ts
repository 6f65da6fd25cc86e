import * as z from 'zod';
import { parseJson } from '../../oci/json.ts';
import { elementsIn, type Member, membersIn, type Span, withoutItem } from './json-text.ts';

/** What a daemon.json that is not there, or empty, stands for. */
const NOTHING = '{}';
const KEY = 'registry-mirrors';

/**
 * The mirrors of Docker Hub that a daemon.json names; `undefined` where it says nothing of them.
 *
 * @throws Error that says why dockerd would refuse the file.
 */
export function mirrorsOf(text: string): readonly string[] | undefined {
  const value = parseJson(text.trim() === '' ? NOTHING : text);
  if (value === undefined) throw new Error('not JSON');
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Error(`${KEY}, or the whole file, is not of the type that Docker wants`);
  return parsed.data[KEY] ?? undefined;
}

/**
 * The file with one more mirror, asked before all others; every other byte stays. One that is there already stays
 * where it is.
 *
 * @throws Error that says why dockerd would refuse the file.
 */
export function withMirror(given: string, url: string): string {
  const mirrors = mirrorsOf(given) ?? [];
  if (mirrors.some((one) => isSame(one, url))) return given;
  const text = given.trim() === '' ? NOTHING : given;
  const value = lastMember(text)?.value;
  const entry = JSON.stringify(url);
  if (value === undefined || mirrors.length === 0) return withList(text, `[${entry}]`);
  const first = elementsIn(text, value.start)[0]?.start ?? value.start + 1;
  const space = text.slice(value.start + 1, first);
  return `${text.slice(0, first)}${entry},${space === '' ? ' ' : space}${text.slice(first)}`;
}

/** The file with an empty list of mirrors: a dockerd that reads it forgets those that it had. */
export function withNoMirrors(text: string): string {
  return withList(text.trim() === '' ? NOTHING : text, '[]');
}

/**
 * The file without a mirror.
 *
 * @param keepsEmpty whether a list stays that has no other.
 * @throws Error that says why dockerd would refuse the file.
 */
export function withoutMirror(text: string, url: string, keepsEmpty: boolean): string {
  const mirrors = mirrorsOf(text) ?? [];
  const index = mirrors.findIndex((one) => isSame(one, url));
  const member = lastMember(text);
  if (index === -1 || member === undefined) return text;
  if (mirrors.length > 1 || keepsEmpty)
    return withoutMirror(withoutItem(text, elementsIn(text, member.value.start), index), url, keepsEmpty);
  const members = membersIn(text);
  const spans = members.map(({ start, value }): Span => ({ start, end: value.end }));
  return withoutItem(
    text,
    spans,
    members.findLastIndex(({ key }) => key === KEY),
  );
}

/** dockerd puts a slash at the end. */
export function isSame(one: string, other: string): boolean {
  return one.replace(/\/+$/, '') === other.replace(/\/+$/, '');
}

const schema = z.looseObject({ [KEY]: z.array(z.string()).nullish() });

/** Of several with the same key the last counts. */
function lastMember(text: string): Member | undefined {
  return membersIn(text).findLast(({ key }) => key === KEY);
}

function withList(text: string, list: string): string {
  const value = lastMember(text)?.value;
  if (value !== undefined) return text.slice(0, value.start) + list + text.slice(value.end);
  const brace = text.indexOf('{') + 1;
  const [first] = membersIn(text);
  if (first === undefined) {
    const rest = text.slice(text.lastIndexOf('}'));
    return `${text.slice(0, brace)}\n  "${KEY}": ${list}\n${rest.endsWith('\n') ? rest : `${rest}\n`}`;
  }
  const space = text.slice(brace, first.start);
  return `${text.slice(0, first.start)}"${KEY}": ${list},${space === '' ? ' ' : space}${text.slice(first.start)}`;
}
