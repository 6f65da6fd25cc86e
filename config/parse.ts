import type * as z from 'zod';
import { parseHost } from '../oci/host.ts';
import {
  type Config,
  DEFAULT_EXCLUDED_NAMESPACES,
  DEFAULT_SKIPPED_OWNERS,
  DIRECT_EGRESS,
  type EgressHop,
  type TagTimes,
  type Upstream,
} from './config.ts';
import type { Endpoint } from './endpoint.ts';
import { parseEndpoint } from './endpoint.ts';
import { KNOWN_UPSTREAMS } from './known-upstreams.ts';
import { checkMeaning } from './meaning.ts';
import { ConfigError, type Problem } from './problem.ts';
import type { StartedWith } from './rewrite-meaning.ts';
import { hostPrefix } from './routing.ts';
import { configSchema, type RawConfig, type RawTags, type RawUpstream } from './schema.ts';
import { type Path, readYaml, type YamlSource } from './yaml-source.ts';

/** A ConfigMap cannot hold more. */
/** Thousands of upstreams are less; reading more would keep the program from everything else for seconds. */
const MAX_BYTES = 256 * 1024;
/** Enough for a person; a file that is wrong throughout is not read to its end. */
const MAX_PROBLEMS = 100;
const MAX_UPSTREAMS = 1000;
const DEFAULT_TAGS: TagTimes = { ttl: 60_000, staleWhileRevalidate: 60_000, budget: 2_000 };

export interface ParsedConfig {
  readonly config: Config;
  readonly warnings: readonly Problem[];
}

/**
 * Reads the configuration, in weir's own form or as a ConfigMap of ketches/registry-proxy has it.
 * `file` only names the text in messages.
 *
 * @throws ConfigError with every problem of the text, not just the first.
 */
export function parseConfig(text: string, file = 'config.yaml', startedWith: StartedWith = {}): ParsedConfig {
  const { config, problems } = readConfig(text, startedWith);
  const errors = problems.filter((problem) => problem.severity === 'error');
  if (config === undefined || errors.length > 0) throw new ConfigError(file, problems);
  return { config, warnings: problems };
}

function readConfig(
  text: string,
  startedWith: StartedWith,
): { config: Config | undefined; problems: readonly Problem[] } {
  if (Buffer.byteLength(text) > MAX_BYTES)
    return {
      config: undefined,
      problems: [wholeFile('the configuration is larger than 256 KiB', 'Shorten it.')],
    };
  const source = readYaml(text);
  if (!source.isReadable) return { config: undefined, problems: source.problems };

  const { raw, problems } = readShape(source);
  if (raw === undefined) return { config: undefined, problems };
  const count = Object.keys(raw.upstreams ?? {}).length + Object.keys(raw.proxies ?? {}).length;
  if (count > MAX_UPSTREAMS)
    return {
      config: undefined,
      problems: [
        wholeFile(
          `${count} upstreams are named, more than ${MAX_UPSTREAMS}`,
          'Name those that are pulled from.',
        ),
      ],
    };
  const config = toConfig(raw);
  const all = [...source.problems, ...problems, ...checkMeaning(raw, config, source, startedWith)];
  return { config, problems: all.toSorted((a, b) => a.line - b.line || a.column - b.column) };
}

/** Reads what can be read: every bad value is reported and left out, so that the rest is looked at as well. */
function readShape(source: YamlSource): { raw: RawConfig | undefined; problems: Problem[] } {
  const problems: Problem[] = [];
  if (source.value === null || source.value === undefined)
    return {
      raw: undefined,
      problems: [wholeFile('the configuration is empty', 'To switch weir off, write "enabled: false".')],
    };
  let value: unknown = source.value;
  for (;;) {
    const parsed = configSchema.safeParse(value);
    if (parsed.success) return { raw: parsed.data, problems };
    for (const issue of parsed.error.issues) {
      for (const path of pathsOf(issue)) {
        const problem = shapeProblem(issue, path, source);
        if (!problems.some(({ key }) => key === problem.key)) problems.push(problem);
        if (path.length === 0) return { raw: undefined, problems };
        if (problems.length >= MAX_PROBLEMS)
          return {
            raw: undefined,
            problems: [...problems, wholeFile('there may be more', 'Correct these first.')],
          };
        // A key that is wanted and missing cannot be left out: what wants it goes instead.
        value = without(value, isMissing(value, path) ? path.slice(0, -1) : path);
      }
    }
  }
}

function pathsOf(issue: z.core.$ZodIssue): readonly Path[] {
  return issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
}

function shapeProblem(issue: z.core.$ZodIssue, path: Path, source: YamlSource): Problem {
  const { message, remedy } = explain(issue);
  return { severity: 'error', ...source.place(path), key: path.map(String).join('.'), message, remedy };
}

function explain(issue: z.core.$ZodIssue): { message: string; remedy: string } {
  switch (issue.code) {
    case 'custom':
      return { message: issue.message, remedy: String(issue.params?.['remedy'] ?? 'Correct it.') };
    case 'unrecognized_keys':
      return {
        message: 'the key is not known',
        remedy: 'Remove it, or look for a slip in its name or indentation.',
      };
    case 'invalid_type':
      return {
        message: `${WANTED[issue.expected] ?? issue.expected} is wanted here`,
        remedy: TYPE_REMEDY[issue.expected] ?? 'Correct the type.',
      };
    case 'invalid_value':
      return {
        message: 'the value is not one of those allowed',
        remedy: `Write ${issue.values.map(String).join(' or ')}.`,
      };
    case 'invalid_union':
      return {
        message: 'it is no proxy',
        remedy: 'Write http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT, direct, or a list of these.',
      };
    default:
      return { message: issue.message.replace(/^./, (c) => c.toLowerCase()), remedy: 'Correct it.' };
  }
}

const WANTED: Readonly<Record<string, string>> = {
  boolean: 'true or false',
  string: 'text',
  array: 'a list',
  object: 'a set of keys',
  record: 'a set of keys',
};

const TYPE_REMEDY: Readonly<Record<string, string>> = {
  boolean: 'Write true or false, without quotes.',
  string: 'Write text; put quotes around what YAML would read as a number, a date or null.',
  array: 'Write a list: one "- item" a line, or [a, b].',
  object: 'Write keys and values, or {} for none.',
  record: 'Write keys and values, or {} for none.',
};

function isMissing(value: unknown, path: Path): boolean {
  let inner: unknown = value;
  for (const step of path) {
    if (typeof inner !== 'object' || inner === null || !Object.hasOwn(inner, step)) return true;
    inner = Object.entries(inner).find(([key]) => key === String(step))?.[1];
  }
  return false;
}

/** A copy in which the value at this path is not there. */
function without(value: unknown, path: Path): unknown {
  const [step, ...rest] = path;
  if (step === undefined || typeof value !== 'object' || value === null) return undefined;
  if (Array.isArray(value)) {
    const items: readonly unknown[] = value;
    return rest.length === 0
      ? items.filter((_, index) => index !== Number(step))
      : items.map((item, index) => (index === Number(step) ? without(item, rest) : item));
  }
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]: [string, unknown]): [string, unknown][] => {
      if (key !== String(step)) return [[key, inner]];
      return rest.length === 0 ? [] : [[key, without(inner, rest)]];
    }),
  );
}

function toConfig(raw: RawConfig): Config {
  const upstreams = new Map<string, Upstream>();
  const add = (name: string, given: RawUpstream): void => {
    const host = parseHost(name);
    if (host !== undefined && !upstreams.has(host)) upstreams.set(host, toUpstream(host, given, raw));
  };
  for (const [name, given] of Object.entries(raw.upstreams ?? {})) add(name, given ?? {});
  for (const [name, mirror] of Object.entries(raw.proxies ?? {})) add(name, { mirror });
  return {
    enabled: raw.enabled ?? true,
    upstreams,
    egress: toEgress(raw),
    includeNamespaces: raw.includeNamespaces ?? ['*'],
    excludeNamespaces: raw.excludeNamespaces ?? DEFAULT_EXCLUDED_NAMESPACES,
    fallback: raw.fallback ?? 'auto',
    ...(raw.rewriteTo === undefined ? {} : { rewriteTo: raw.rewriteTo }),
    skipOwners: raw.skipOwners ?? DEFAULT_SKIPPED_OWNERS,
  };
}

function toUpstream(host: string, given: RawUpstream, raw: RawConfig): Upstream {
  const known = KNOWN_UPSTREAMS.get(host);
  const endpoint: Endpoint = given.endpoint ?? parseEndpoint(known?.endpoint ?? `https://${host}`);
  const prefixes = [given.prefix, ...(known?.prefixes ?? []), hostPrefix(host)];
  return {
    host,
    endpoint,
    ...(given.mirror === undefined ? {} : { mirror: given.mirror }),
    via: given.via ?? 'registry',
    direct: given.direct ?? raw.defaults?.direct ?? true,
    egress: given.egress ?? raw.defaults?.egress ?? DIRECT_EGRESS,
    prefixes: [...new Set(prefixes.filter((prefix) => prefix !== undefined))],
    tags: toTags({ ...raw.defaults?.tags, ...given.tags }),
    timeouts: { ...raw.defaults?.timeouts, ...given.timeouts },
    warm: given.warm ?? raw.defaults?.warm ?? [],
    ...(given.credentials === undefined ? {} : { credentials: given.credentials }),
    ...(given.ca === undefined ? {} : { ca: given.ca }),
    trustedHosts: given.trustedHosts ?? [],
  };
}

/** Who wants every tag looked up at once does not want the known answer meanwhile. */
function toTags(given: RawTags): TagTimes {
  const { ttl = DEFAULT_TAGS.ttl, budget = DEFAULT_TAGS.budget } = given;
  const staleWhileRevalidate =
    given.staleWhileRevalidate ?? (ttl === 0 ? 0 : DEFAULT_TAGS.staleWhileRevalidate);
  return { ttl, staleWhileRevalidate, budget };
}

function toEgress(raw: RawConfig): Config['egress'] {
  const given = Object.entries(raw.egress ?? {}).map(([name, { proxy }]): [string, readonly EgressHop[]] => [
    name,
    Array.isArray(proxy) ? proxy : [proxy],
  ]);
  return new Map([[DIRECT_EGRESS, [{ kind: 'direct' }]], ...given]);
}

function wholeFile(message: string, remedy: string): Problem {
  return { severity: 'error', line: 0, column: 0, key: '', message, remedy };
}
