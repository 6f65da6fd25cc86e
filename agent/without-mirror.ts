import { isDeepStrictEqual } from 'node:util';
import { type JsonMap, stringify } from '@iarna/toml';
import { type HostsFile, isSameHost, isServer, NotTomlError, parseHosts, parseToml } from './hosts-file.ts';
import { NOTE, SERVER_SETTINGS } from './hosts-toml.ts';
import { isMarkerLine } from './marker.ts';
import { MIRROR_CA_PATH } from './mirror-ca.ts';

/** What is left of a file once the mirror is out of it. */
export interface Remainder {
  readonly text: string;
  readonly file: HostsFile;
  readonly hasComments: boolean;
}

/**
 * Takes our host, our comments and a `server` that names our host out of a hosts.toml, and leaves everything else
 * as it was written, comments included. `before` is the root of the user's original: `server` is reset to it.
 *
 * @throws Error when the text is no hosts.toml.
 */
export function withoutMirror(text: string, mirror: string, before: JsonMap = {}): Remainder {
  const wanted = withoutMirrorTable(parseHosts(text), mirror, before);
  const lines = text.split('\n').filter((line) => !isMarkerLine(line) && line.trimEnd() !== NOTE);
  const [head = [], ...sections] = sectionsOf(lines);
  const kept = sections.flatMap((section) =>
    isMirrorSection(section, mirror) ? section.filter(isComment) : section,
  );
  const rest = [...rootLines(head, mirror, before), ...kept];
  const edited = `${rest.join('\n').trim()}\n`.replace(/^\n$/, '');
  // Someone may write a host in a way that lines do not show (inline, dotted): the comments are lost then.
  const result = saysTheSame(edited, wanted) ? edited : format(wanted);
  const hasComments = result.split('\n').some(isComment);
  return { text: result, file: wanted, hasComments };
}

function withoutMirrorTable({ root, hosts }: HostsFile, mirror: string, before: JsonMap): HostsFile {
  return {
    root: isServer(root, mirror) ? { ...settingsOfServer(before), ...withoutOurs(root) } : { ...root },
    hosts: new Map([...hosts].filter(([host]) => !isSameHost(host, mirror))),
  };
}

/** Where `server` is our mirror, these are ours; whatever else described the original's server was taken out. */
function withoutOurs(root: JsonMap): JsonMap {
  return Object.fromEntries(Object.entries(root).filter(([key, value]) => !isOurs(key, value)));
}

function hasOurs(table: JsonMap = {}): boolean {
  return Object.entries(table).some(([key, value]) => isOurs(key, value));
}

function isOurs(key: string, value: unknown): boolean {
  return key === 'server' || key === 'override_path' || (key === 'ca' && value === MIRROR_CA_PATH);
}

function settingsOfServer(before: JsonMap): JsonMap {
  return Object.fromEntries(
    Object.entries(before).filter(([key]) => key === 'server' || SERVER_SETTINGS.includes(key)),
  );
}

/** The lines before the first table, then one list for each table, beginning with its header. */
function sectionsOf(lines: readonly string[]): string[][] {
  const sections: string[][] = [[]];
  for (const line of lines) {
    if (headerOf(line) !== undefined) sections.push([]);
    sections.at(-1)?.push(line);
  }
  return sections;
}

/** `['host', 'http://…', 'header']` of `[host."http://…".header]`. */
function headerOf(line: string): readonly string[] | undefined {
  if (!line.trimStart().startsWith('[')) return undefined;
  const keys: string[] = [];
  for (let value = tryToml(line); value !== undefined; ) {
    const [key, inner] = Object.entries(value)[0] ?? [];
    if (key === undefined) break;
    keys.push(key);
    value =
      typeof inner === 'object' && !Array.isArray(inner) && !(inner instanceof Date) ? inner : undefined;
  }
  return keys.length > 0 ? keys : undefined;
}

function tryToml(line: string): JsonMap | undefined {
  try {
    return parseToml(line);
  } catch (error) {
    // The inside of an array or of a long string looks like a header at times, and is none.
    if (error instanceof NotTomlError) return undefined;
    throw error;
  }
}

function isMirrorSection([first = '']: readonly string[], mirror: string): boolean {
  const [table, host] = headerOf(first) ?? [];
  return table === 'host' && host !== undefined && isSameHost(host, mirror);
}

function isComment(line: string): boolean {
  return line.trimStart().startsWith('#');
}

function rootLines(lines: readonly string[], mirror: string, before: JsonMap): string[] {
  const values = lines.map((line) =>
    /^\s*["']?(?:server|override_path|ca)\b/.test(line) ? tryToml(line) : undefined,
  );
  if (!values.some((value) => value !== undefined && isServer(value, mirror))) return [...lines];
  const rest = lines.filter((_, index) => !hasOurs(values[index]));
  const reset = stringify(settingsOfServer(before)).trimEnd();
  return reset === '' ? rest : [...rest, reset, ''];
}

function saysTheSame(text: string, wanted: HostsFile): boolean {
  const read = tryToml(text) === undefined ? undefined : parseHosts(text);
  return (
    isDeepStrictEqual({ ...read?.root }, wanted.root) &&
    isDeepStrictEqual([...(read?.hosts ?? [])], [...wanted.hosts])
  );
}

function format({ root, hosts }: HostsFile): string {
  return stringify(hosts.size === 0 ? root : { ...root, host: Object.fromEntries(hosts) });
}
