import { isDeepStrictEqual } from 'node:util';
import { type JsonMap, parse, stringify } from '@iarna/toml';
import * as z from 'zod';
import { messageOf } from '../process/file-problem.ts';

/** A hosts.toml: what stands at its root describes `server`, and every host has a table. */
export interface HostsFile {
  readonly root: JsonMap;
  /** In the order in which containerd tries them. */
  readonly hosts: ReadonlyMap<string, JsonMap>;
}

export const EMPTY_HOSTS_FILE: HostsFile = { root: {}, hosts: new Map() };

/**
 * Reads a hosts.toml as strictly as containerd does: one bad value and containerd drops the whole file, so a
 * merge with such a file would be dropped as well.
 *
 * @throws Error that says in one line what is wrong.
 */
export function parseHosts(text: string): HostsFile {
  const table = parseToml(text);
  const shape = fileSchema.safeParse(table);
  if (!shape.success) {
    const issue = shape.error.issues[0];
    throw new Error(`${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'not allowed'}`);
  }
  const { host = {}, ...root } = table;
  const hosts = new Map(
    Object.entries(host).filter((entry): entry is [string, JsonMap] => isTable(entry[1])),
  );
  return { root, hosts };
}

/**
 * @throws Error when the text would not be read back as what is meant, which has to be found out before containerd
 * reads it: it logs a bad file and goes upstream silently.
 */
export function formatHosts(file: HostsFile): string {
  const text = stringify({ ...file.root, host: Object.fromEntries(file.hosts) });
  const read = parseHosts(text);
  const same = isDeepStrictEqual(read.root, { ...file.root });
  if (!same || !isDeepStrictEqual([...read.hosts], [...file.hosts]))
    throw new Error('the merged file would not read back as what is meant: simplify the original');
  return text;
}

/** Whether two hosts of hosts.toml lead to the same place, however they are written. */
export function isSameHost(one: string, other: string): boolean {
  return one === other || placeOf(one) === placeOf(other);
}

/** Whether containerd would ask a host because of this file. */
export function namesHost({ root, hosts }: HostsFile, host: string): boolean {
  return isServer(root, host) || hosts.keys().some((one) => isSameHost(one, host));
}

/** Whether the `server` at a file's root is this host. */
export function isServer(root: JsonMap, host: string): boolean {
  return typeof root['server'] === 'string' && isSameHost(root['server'], host);
}

/** containerd's parseHostConfig: https unless it begins with `http`; `/v2` is appended to a path without one. */
function placeOf(host: string): string {
  const url = host.startsWith('http') ? host : `https://${host}`;
  if (!URL.canParse(url)) return host;
  const { origin, pathname } = new URL(url);
  return origin + pathname.replace(/\/+$/, '').replace(/\/v2$/, '');
}

export class NotTomlError extends Error {}

/** @throws NotTomlError that says in one line what is wrong. */
export function parseToml(text: string): JsonMap {
  try {
    // The parser takes the CR of a line end for a control character when a comment stands before it.
    return parse(text.replaceAll(/\r(?=\n|$)/g, ''));
  } catch (error) {
    // A pure function of the text: whatever it throws is about the text.
    throw new NotTomlError(`not TOML: ${messageOf(error).split('\n')[0]}`, { cause: error });
  }
}

export function isTable(value: unknown): value is JsonMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

// The types that containerd's hostFileConfig accepts. `referrers` is a capability of its newer versions.
const DURATION = /^(?:|[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+))$/;
const settings = {
  capabilities: z
    .array(
      z
        .string()
        .toLowerCase()
        .pipe(z.enum(['pull', 'resolve', 'push', 'referrers'])),
    )
    .optional(),
  ca: z.union([z.string(), z.array(z.string())]).optional(),
  client: z.union([z.string(), z.array(z.union([z.string(), z.tuple([z.string(), z.string()])]))]).optional(),
  skip_verify: z.boolean().optional(),
  header: z.record(z.string(), z.union([z.string(), z.array(z.string())])).optional(),
  override_path: z.boolean().optional(),
  dial_timeout: z.string().regex(DURATION, 'no duration such as "3s"').optional(),
};
const fileSchema = z.looseObject({
  ...settings,
  server: z.string().optional(),
  host: z.record(z.string(), z.looseObject(settings)).optional(),
});
