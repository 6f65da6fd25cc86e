import type { Logger } from 'pino';
import type { Kubernetes } from './api.ts';
import { ObjectWatch } from './object-watch.ts';

/** Tells of the namespaces that have an annotation with this value, whenever a namespace changes. */
export function watchAnnotatedNamespaces(options: {
  readonly kubernetes: Kubernetes;
  readonly annotation: string;
  readonly value: string;
  readonly changed: (names: ReadonlySet<string>) => void;
  readonly log: Logger;
}): ObjectWatch<'namespaces'> {
  const { kubernetes, annotation, value, changed, log } = options;
  return new ObjectWatch<'namespaces'>({
    kubernetes,
    what: 'Namespaces',
    collection: 'namespaces',
    selection: {},
    changed: (namespaces) => {
      const found = namespaces.filter(({ metadata }) => metadata?.annotations?.[annotation] === value);
      changed(new Set(found.map(({ metadata }) => metadata?.name ?? '')));
    },
    log,
  });
}
