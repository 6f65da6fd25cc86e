import type { JsonMap } from '@iarna/toml';
import * as z from 'zod';
import { isTable, parseToml } from '../hosts-file.ts';

/** One `[[registry]]` of a registries.conf, as containers/image reads it. */
export interface RegistryEntry {
  /** Of the image names that it is for: `docker.io`, `docker.io/acme`, `*.corp`. */
  readonly prefix: string;
  /** What stands in the name for the prefix; only a `*.` prefix may have none, and is left as it is then. */
  readonly location: string | undefined;
  readonly insecure: boolean;
  readonly blocked: boolean;
  readonly byDigestOnly: boolean;
  readonly mirrors: readonly MirrorEntry[];
  /** Keys that weir does not know. */
  readonly others: JsonMap;
}

export interface MirrorEntry {
  readonly location: string;
  readonly insecure: boolean;
  readonly pullFromMirror: 'all' | 'digest-only' | 'tag-only';
  readonly others: JsonMap;
}

/** Whether the file is registries.conf itself, or a drop-in, for which the old format is refused. */
export type RegistriesFile = 'main' | 'drop-in';

/**
 * Reads a registries.conf as strictly as containers/image does (pkg/sysregistriesv2): what that refuses keeps the
 * runtime from every pull. Of several entries with the same prefix the first counts.
 *
 * @throws Error that says in one line what is wrong.
 */
export function parseRegistries(text: string, kind: RegistriesFile): ReadonlyMap<string, RegistryEntry> {
  const table = parseToml(text);
  const shape = fileSchema.safeParse(table);
  if (!shape.success) {
    const issue = shape.error.issues[0];
    throw new Error(`${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'not allowed'}`);
  }
  const { registries: old = {}, 'unqualified-search-registries': search = [] } = shape.data;
  const given = tablesOf(table, 'registry').map((one, at) => entryOf(one, shape.data.registry?.[at] ?? {}));
  const isOld = [old.search, old.insecure, old.block].some((list) => (list?.registries ?? []).length > 0);
  if (isOld && kind === 'drop-in')
    throw new Error('it is of version 1 of the format, which no drop-in may be');
  if (isOld && (given.length > 0 || search.length > 0))
    throw new Error('it mixes versions 1 and 2 of the format');
  const entries = isOld ? oldEntries(old) : given;
  const clash = conflictAmong(entries);
  if (clash !== undefined) throw new Error(clash);
  const found = new Map<string, RegistryEntry>();
  for (const entry of entries) if (!found.has(entry.prefix)) found.set(entry.prefix, entry);
  return found;
}

/** Why containers/image would refuse a file with these entries; `undefined` when it would not. */
export function conflictAmong(entries: readonly RegistryEntry[]): string | undefined {
  for (const entry of entries) {
    const place = entry.location ?? entry.prefix;
    const others = entries.filter((other) => (other.location ?? other.prefix) === place);
    if (others.some(({ insecure, blocked }) => insecure !== entry.insecure || blocked !== entry.blocked))
      return `"${place}" is the location of two registries that differ in "insecure" or "blocked"`;
  }
  return undefined;
}

/**
 * The length of what a prefix takes of an image name or of its host; `undefined` when it is not for that name
 * (`refMatchingPrefix`: a prefix ends before `/`, `:` or `@`, or with the name).
 */
export function matchLength(name: string, prefix: string): number | undefined {
  const domain = prefix.startsWith('*.') ? prefix.slice(1) : undefined;
  const at = domain === undefined ? 0 : name.indexOf(domain);
  if (at === -1 || name.slice(0, at).includes('/')) return undefined;
  const end = at + (domain ?? prefix).length;
  if (name.slice(at, end) !== (domain ?? prefix)) return undefined;
  return end === name.length || /[/:@]/.test(name.charAt(end)) ? end : undefined;
}

/** The table by which a file says this. */
export function tableOf(entry: RegistryEntry): JsonMap {
  const { prefix, location, insecure, blocked, byDigestOnly, mirrors, others } = entry;
  return {
    prefix,
    ...(location === undefined ? {} : { location }),
    ...(insecure ? { insecure } : {}),
    ...(blocked ? { blocked } : {}),
    ...(byDigestOnly ? { 'mirror-by-digest-only': true } : {}),
    ...others,
    ...(mirrors.length === 0 ? {} : { mirror: mirrors.map(mirrorTable) }),
  };
}

function mirrorTable({ location, insecure, pullFromMirror, others }: MirrorEntry): JsonMap {
  return {
    location,
    ...(insecure ? { insecure } : {}),
    ...(pullFromMirror === 'all' ? {} : { 'pull-from-mirror': pullFromMirror }),
    ...others,
  };
}

const place = z
  .string()
  .refine((text) => !/^https?:\/\//.test(text), 'a location has no scheme')
  .transform((text) => text.replace(/\/+$/, ''));
const endpoint = { location: place.optional(), insecure: z.boolean().optional() };
const mirrorSchema = z.looseObject({
  ...endpoint,
  'pull-from-mirror': z.enum(['', 'all', 'digest-only', 'tag-only']).optional(),
});
const registrySchema = z.looseObject({
  ...endpoint,
  prefix: place.optional(),
  blocked: z.boolean().optional(),
  'mirror-by-digest-only': z.boolean().optional(),
  'pull-from-mirror': z.literal('', 'it is for mirrors').optional(),
  mirror: z.array(mirrorSchema).optional(),
});
const listSchema = z.looseObject({ registries: z.array(z.string()).optional() });
const fileSchema = z.looseObject({
  registry: z.array(registrySchema).optional(),
  'unqualified-search-registries': z.array(z.string()).optional(),
  registries: z
    .looseObject({
      search: listSchema.optional(),
      insecure: listSchema.optional(),
      block: listSchema.optional(),
    })
    .optional(),
});

type OldLists = NonNullable<z.output<typeof fileSchema>['registries']>;
type RawRegistry = z.output<typeof registrySchema>;
type RawMirror = z.output<typeof mirrorSchema>;

const KNOWN = new Set([...Object.keys(registrySchema.shape), ...Object.keys(mirrorSchema.shape)]);

function entryOf(table: JsonMap, raw: RawRegistry): RegistryEntry {
  const location = raw.location || undefined;
  const prefix = raw.prefix || location;
  if (prefix === undefined) throw new Error('a registry has neither a prefix nor a location');
  if (location === undefined && !prefix.startsWith('*.'))
    throw new Error(`the registry with the prefix "${prefix}" has no location`);
  const byDigestOnly = raw['mirror-by-digest-only'] ?? false;
  const tables = tablesOf(table, 'mirror');
  const mirrors = (raw.mirror ?? []).map((mirror, at) => mirrorOf(tables[at] ?? {}, mirror, prefix));
  if (byDigestOnly && (raw.mirror ?? []).some((mirror) => Boolean(mirror['pull-from-mirror'])))
    throw new Error(`"${prefix}" has both mirror-by-digest-only and pull-from-mirror`);
  const { insecure = false, blocked = false } = raw;
  return { prefix, location, insecure, blocked, byDigestOnly, mirrors, others: unknownKeys(table) };
}

function mirrorOf(table: JsonMap, raw: RawMirror, prefix: string): MirrorEntry {
  const { location, insecure = false } = raw;
  if (!location) throw new Error(`a mirror of "${prefix}" has no location`);
  const pullFromMirror = raw['pull-from-mirror'] || 'all';
  return { location, insecure, pullFromMirror, others: unknownKeys(table) };
}

/** Of version 1: no mirrors, no rewriting. */
function oldEntries({ insecure, block }: OldLists): RegistryEntry[] {
  const blocked = new Set((block?.registries ?? []).map((text) => place.parse(text)));
  const open = new Set((insecure?.registries ?? []).map((text) => place.parse(text)));
  return [...blocked.union(open)].map((location) => ({
    prefix: location,
    location,
    insecure: open.has(location),
    blocked: blocked.has(location),
    byDigestOnly: false,
    mirrors: [],
    others: {},
  }));
}

function tablesOf(table: JsonMap, key: string): JsonMap[] {
  const value = table[key];
  const values: readonly unknown[] = Array.isArray(value) ? value : [];
  return values.filter(isTable);
}

function unknownKeys(table: JsonMap): JsonMap {
  return Object.fromEntries(Object.entries(table).filter(([key]) => !KNOWN.has(key)));
}
