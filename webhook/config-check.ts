import type { Config, Upstream } from '../config/config.ts';
import { parseConfig } from '../config/parse.ts';
import { ConfigError, formatProblem, type Problem } from '../config/problem.ts';
import { readYaml } from '../config/yaml-source.ts';
import { isLoopback } from '../oci/host.ts';
import type { Answer } from './admission-review.ts';
import type { RegistryPlace } from './rewrite.ts';

/** A text of the configuration as somebody wants to write it. */
export type EditedText =
  | { readonly kind: 'text'; readonly text: string; readonly origin: string }
  | { readonly kind: 'missing'; readonly reason: string };

/**
 * What is said to an edit of the configuration, by a webhook that was started with this registry: refused with every problem and its line, or let in
 * with warnings.
 */
export function checkEdit(edited: EditedText, registry: RegistryPlace): Answer {
  if (edited.kind === 'missing') return { refusal: `${edited.reason}: weir would go on with what it has` };
  const { text, origin } = edited;
  try {
    const { config, warnings } = parseConfig(text, origin, registry);
    const loops = loopsIn(text, config, registry);
    if (loops.length > 0) throw new ConfigError(origin, loops);
    return { warnings: warnings.map((warning) => formatProblem(warning, 'config.yaml')) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { refusal: error.message };
  }
}

/** Upstreams that weir would look for at itself. */
function loopsIn(text: string, config: Config, registry: RegistryPlace): readonly Problem[] {
  const own = ownNames(config, registry);
  const source = readYaml(text);
  return [...config.upstreams.values()].flatMap((upstream) =>
    targetsOf(upstream).flatMap(([key, origin]): Problem[] => {
      const { host, hostname } = new URL(origin);
      if (!own.has(host) && !own.has(hostname)) return [];
      const path = ['upstreams', upstream.host, key];
      return [
        {
          severity: 'error',
          ...source.place(path),
          key: path.join('.'),
          message: `${host} is weir itself, so that it would ask itself without end`,
          remedy: 'Name the registry, or a mirror that is not weir.',
        },
      ];
    }),
  );
}

function targetsOf({ endpoint, mirror }: Upstream): readonly (readonly [key: string, origin: string])[] {
  return [
    ['endpoint', endpoint.origin],
    ...(mirror === undefined ? [] : [['mirror', mirror.origin] as const]),
  ];
}

/** Hosts with their port, and names of the Service, whatever the port. */
function ownNames({ rewriteTo }: Config, registry: RegistryPlace): ReadonlySet<string> {
  const { hostname } = new URL(registry.url);
  const [service = '', namespace, svc] = hostname.split('.');
  const isService = namespace !== undefined && (svc === undefined || svc === 'svc');
  const full = `${service}.${namespace}`;
  const names = isService ? [service, full, `${full}.svc`, `${full}.svc.cluster.local`] : [];
  return new Set([
    new URL(registry.url).host,
    rewriteTo ?? registry.rewriteTo,
    ...(isLoopback(registry.rewriteTo) ? [registry.rewriteTo] : []),
    ...names,
  ]);
}
