import process from 'node:process';
import type { Upstream } from '../config/config.ts';
import { formatDuration } from '../config/duration.ts';
import { formatEndpoint } from '../config/endpoint.ts';
import { ConfigError, formatProblem } from '../config/problem.ts';
import { routeFor, sourcesOf } from '../config/routing.ts';
import type { ConfigVersion } from '../config/version.ts';
import { readConfigFile } from '../config/watch.ts';
import { describe, UsageError } from '../process/lifecycle.ts';

/** `weir config check`: warnings go to standard error and change nothing about the exit code. */
export async function checkConfig(file: string): Promise<void> {
  const { config } = await read(file);
  const state = config.enabled ? 'mirrored' : 'known, and none is mirrored, since "enabled" is false';
  process.stdout.write(`${file}: ${count(config.upstreams.size, 'upstream')} ${state}\n`);
}

/** `weir config routes`: one line a registry host. */
export async function showRoutes(file: string): Promise<void> {
  const { config } = await read(file);
  const rows = [...config.upstreams.values()].map((upstream) => {
    const route = routeFor(config, upstream.host);
    const prefixes = upstream.prefixes.map((prefix) => `/${prefix}`).join(' ');
    return [
      upstream.host,
      nodesAsk(route.kind, upstream),
      registryAsks(upstream),
      formatDuration(upstream.tags.ttl),
      prefixes,
    ];
  });
  const lines = table([['REGISTRY', 'NODES ASK', 'WEIR FETCHES FROM', 'TAG TTL', 'PATHS'], ...rows]);
  process.stdout.write(
    `${lines.join('\n')}\n(every other registry: nodes ask it themselves, and weir does not serve it)\n`,
  );
}

async function read(file: string): Promise<ConfigVersion> {
  try {
    const version = await readConfigFile(file);
    for (const warning of version.warnings) process.stderr.write(`${formatProblem(warning, file)}\n`);
    return version;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw new UsageError(describe(error));
    process.stderr.write(`${error.message}\n`);
    const errors = error.problems.filter(({ severity }) => severity === 'error').length;
    throw new UsageError(`${file} would be refused for ${count(errors, 'error')}`);
  }
}

function nodesAsk(kind: 'untouched' | 'registry' | 'node', upstream: Upstream): string {
  const origin = formatEndpoint(upstream.endpoint);
  if (kind === 'untouched') return `${origin} (disabled)`;
  const first = kind === 'node' && upstream.mirror !== undefined ? formatEndpoint(upstream.mirror) : 'weir';
  return upstream.direct ? `${first}, then ${origin}` : `${first} only`;
}

function registryAsks(upstream: Upstream): string {
  const sources = sourcesOf(upstream).map(formatEndpoint).join(', then ');
  return upstream.egress === 'direct' ? sources : `${sources} (egress ${upstream.egress})`;
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}
