import { CANARY_HOST } from '../oci/canary.ts';
import { parseHost } from '../oci/host.ts';
import { isNamedHost } from '../oci/reference.ts';
import { type Config, DIRECT_EGRESS, type Upstream } from './config.ts';
import type { Endpoint } from './endpoint.ts';
import { isForbiddenTarget } from './forbidden-targets.ts';
import { KNOWN_PREFIXES } from './known-upstreams.ts';
import type { Problem, Report } from './problem.ts';
import { checkRewrite, type StartedWith } from './rewrite-meaning.ts';
import { hostPrefix } from './routing.ts';
import { namesIn, type RawConfig, type RawUpstream } from './schema.ts';
import type { Path, YamlSource } from './yaml-source.ts';

/** Looks for what no single key shows: contradictions, loops, prefixes that are claimed twice, doubtful settings. */
export function checkMeaning(
  raw: RawConfig,
  config: Config,
  source: YamlSource,
  startedWith: StartedWith,
): readonly Problem[] {
  const problems: Problem[] = [];
  const report: Report = (severity, path, message, remedy) => {
    problems.push({ severity, ...source.place(path), key: path.map(String).join('.'), message, remedy });
  };
  checkHosts(raw, report);
  for (const [name, given] of Object.entries(raw.upstreams ?? {})) {
    const upstream = config.upstreams.get(parseHost(name) ?? '');
    if (upstream !== undefined) checkUpstream(['upstreams', name], given ?? {}, upstream, config, report);
  }
  for (const name of Object.keys(raw.proxies ?? {})) {
    const upstream = config.upstreams.get(parseHost(name) ?? '');
    if (upstream?.mirror !== undefined) checkMirror(['proxies', name], upstream, upstream.mirror, report);
  }
  checkDefaults(raw, config, report);
  checkPrefixes(raw, config, report);
  checkPaths(raw, config, report);
  checkNamespaces(raw, config, report);
  checkRewrite(raw, config, startedWith, report);
  if (config.upstreams.size === 0)
    report(
      'warning',
      [],
      'no upstream is named, so nothing is mirrored',
      'Name registries under "upstreams", for example "docker.io: {}".',
    );
  return problems;
}

function checkHosts(raw: RawConfig, report: Report): void {
  const seen = new Map<string, string>();
  for (const path of namesIn(raw)) {
    const host = parseHost(path[1]);
    if (host === undefined) {
      report(
        'error',
        path,
        `"${path[1]}" is no registry host`,
        'Write it as in image names: HOST or HOST:PORT, without a scheme or path.',
      );
      continue;
    }
    if (host === CANARY_HOST) {
      report('error', path, `${host} is weir's own, by which nodes are proven`, 'Take it out.');
      continue;
    }
    const first = seen.get(host);
    if (first === undefined) seen.set(host, path.join('.'));
    else report('error', path, `${host} is configured a second time, after ${first}`, 'Keep one of the two.');
  }
}

function checkUpstream(
  path: Path,
  given: RawUpstream,
  upstream: Upstream,
  config: Config,
  report: Report,
): void {
  if (upstream.mirror !== undefined) checkMirror([...path, 'mirror'], upstream, upstream.mirror, report);
  checkTarget(
    given.endpoint === undefined ? path : [...path, 'endpoint'],
    upstream,
    upstream.endpoint,
    report,
  );
  if (upstream.via === 'node' && upstream.mirror === undefined)
    report(
      'error',
      [...path, 'via'],
      '"via: node" needs a mirror to send the nodes to',
      'Add "mirror: https://HOST", or remove "via".',
    );
  if (given.egress !== undefined && !config.egress.has(given.egress))
    report('error', [...path, 'egress'], `there is no egress "${given.egress}"`, egressRemedy(config));
  if (given.credentials !== undefined && given.access === undefined)
    report(
      'error',
      [...path, 'credentials'],
      'whoever reaches the registry can then pull what these credentials can',
      'If that is meant, add "access: everyone".',
    );
  if (given.access !== undefined && given.credentials === undefined)
    report('warning', [...path, 'access'], '"access" changes nothing without "credentials"', 'Remove it.');
}

function checkMirror(path: Path, upstream: Upstream, mirror: Endpoint, report: Report): void {
  checkTarget(path, upstream, mirror, report);
  const host = new URL(mirror.origin).host;
  if (upstream.via === 'node' && !isNamedHost(host))
    report(
      'error',
      path,
      `in the name of an image, ${host} would not be a host but a name on Docker Hub`,
      'Name the mirror by a host with a dot, or with a port other than that of its scheme.',
    );
  if (
    mirror.origin === upstream.endpoint.origin &&
    mirror.repositoryPrefix === upstream.endpoint.repositoryPrefix
  )
    report(
      'error',
      path,
      `the mirror is ${upstream.host} itself`,
      'Name another host, or remove the mirror.',
    );
  else if (host === upstream.host)
    report(
      'warning',
      path,
      `the mirror's host is the registry's own name`,
      'Make sure that it leads elsewhere.',
    );
}

function checkTarget(path: Path, upstream: Upstream, target: Endpoint, report: Report): void {
  const { hostname, host, protocol } = new URL(target.origin);
  if (isForbiddenTarget(hostname) && !upstream.trustedHosts.includes(host))
    report(
      'error',
      path,
      `${host} is the cluster's API server or a cloud's metadata service`,
      `Name a registry. If it really is one, add "trustedHosts: ['${host}']".`,
    );
  if (protocol === 'http:' && !/^(?:127\.|localhost$|\[::1\]$)/.test(hostname))
    report(
      'warning',
      path,
      'over plain http the answer to a tag can be forged on the way',
      'Use https where the registry offers it.',
    );
}

function checkDefaults(raw: RawConfig, config: Config, report: Report): void {
  const egress = raw.defaults?.egress;
  if (egress !== undefined && !config.egress.has(egress))
    report('error', ['defaults', 'egress'], `there is no egress "${egress}"`, egressRemedy(config));
  if (raw.egress?.[DIRECT_EGRESS] !== undefined)
    report(
      'error',
      ['egress', DIRECT_EGRESS],
      `"${DIRECT_EGRESS}" is the egress without a proxy`,
      'Give this one another name.',
    );
}

function egressRemedy(config: Config): string {
  return `Name one under "egress", or use one of: ${[...config.egress.keys()].join(', ')}.`;
}

function checkPrefixes(raw: RawConfig, config: Config, report: Report): void {
  for (const [name, given] of Object.entries(raw.upstreams ?? {})) {
    const prefix = given?.prefix;
    const host = parseHost(name);
    if (prefix === undefined || host === undefined) continue;
    const other = [...config.upstreams.values()].find(
      (one) => one.host !== host && one.prefixes.includes(prefix),
    )?.host;
    const known = KNOWN_PREFIXES.get(prefix);
    const owner = other ?? (known === host ? undefined : known);
    if (owner !== undefined)
      report(
        'error',
        ['upstreams', name, 'prefix'],
        `"${prefix}" already stands for ${owner}`,
        'Choose another prefix.',
      );
  }
}

/** Every upstream has a path of its own without being given one, in which a port looks like a part of the name. */
function checkPaths(raw: RawConfig, config: Config, report: Report): void {
  const owners = new Map<string, string>();
  for (const path of namesIn(raw)) {
    const host = parseHost(path[1]);
    if (host === undefined || !config.upstreams.has(host)) continue;
    const prefix = hostPrefix(host);
    const owner = owners.get(prefix) ?? host;
    owners.set(prefix, owner);
    if (owner !== host)
      report(
        'error',
        path,
        `${host} and ${owner} would both be under the path "${prefix}"`,
        'Keep one of the two, or give one of them another host.',
      );
  }
}

function checkNamespaces(raw: RawConfig, config: Config, report: Report): void {
  const remedy =
    'They hold for the webhook, on nodes that cannot be configured; a configured node mirrors the Pods of every namespace.';
  const all = config.includeNamespaces.includes('*');
  if (raw.includeNamespaces && !all)
    report('warning', ['includeNamespaces'], "a node's runtime does not know namespaces", remedy);
  if (raw.excludeNamespaces && raw.excludeNamespaces.length > 0)
    report('warning', ['excludeNamespaces'], "a node's runtime does not know namespaces", remedy);
  for (const key of ['podSelector', 'namespaceSelector'] as const)
    if (Object.keys(raw[key] ?? {}).length > 0)
      report('warning', [key], "a node's runtime does not know labels, and weir goes by none", remedy);
}
