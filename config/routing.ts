import type { Config, Upstream } from './config.ts';
import type { Endpoint } from './endpoint.ts';
import { KNOWN_PREFIXES } from './known-upstreams.ts';

/** What becomes of pulls from one registry host: the one question that all three programs ask. */
export type Route =
  /** Nothing: nodes pull as if weir were not there. */
  | { readonly kind: 'untouched'; readonly host: string; readonly why: 'disabled' | 'not configured' }
  /** Nodes ask our registry, which fetches from `sources` in their order. */
  | { readonly kind: 'registry'; readonly host: string; readonly upstream: Upstream }
  /** Nodes ask a mirror of the operator's themselves, past our registry. */
  | { readonly kind: 'node'; readonly host: string; readonly upstream: Upstream; readonly mirror: Endpoint };

export function routeFor(config: Config, host: string): Route {
  const upstream = config.upstreams.get(host);
  if (upstream === undefined) return { kind: 'untouched', host, why: 'not configured' };
  if (!config.enabled) return { kind: 'untouched', host, why: 'disabled' };
  if (upstream.via === 'node' && upstream.mirror !== undefined)
    return { kind: 'node', host, upstream, mirror: upstream.mirror };
  return { kind: 'registry', host, upstream };
}

/** Where our registry fetches from, best first. */
export function sourcesOf(upstream: Upstream): readonly Endpoint[] {
  return upstream.mirror === undefined ? [upstream.endpoint] : [upstream.mirror, upstream.endpoint];
}

/**
 * The registry host that a first path component stands for. A prefix that weir knows, or one that looks like a
 * host, is never read as a Docker Hub name, even when its upstream is not configured: somebody else may own
 * that name on Docker Hub.
 */
export function hostForPrefix(config: Config, component: string): string | undefined {
  for (const upstream of config.upstreams.values())
    if (upstream.prefixes.includes(component)) return upstream.host;
  return KNOWN_PREFIXES.get(component) ?? (component.includes('.') ? component : undefined);
}

/** The prefix under which every upstream is served without being given one. */
export function hostPrefix(host: string): string {
  return host.replaceAll(':', '-').replaceAll(/[[\]]/g, '');
}
