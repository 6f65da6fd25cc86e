import { join } from 'node:path';
import type { Config } from '../../config/config.ts';
import { generatorProblem } from '../generator.ts';
import type { NodeSight, OwnedHost } from './node-sight.ts';
import type { NodeView } from './node-view.ts';

const DEFAULT_DIRECTORY = '_default';

/** The registry hosts whose hosts.toml the distribution wrote and will write again. */
export async function findOwnedHosts(
  view: NodeView,
  certsDirs: readonly string[],
): Promise<readonly OwnedHost[]> {
  const owned: OwnedHost[] = [];
  for (const directory of certsDirs)
    for (const name of await view.names(directory)) {
      if (name === DEFAULT_DIRECTORY) continue;
      const file = join(directory, name, 'hosts.toml');
      // What cannot be read is told where it is to be written.
      const text = (await view.file(file).catch(() => undefined))?.text ?? '';
      const reason = generatorProblem(file, text);
      if (reason === undefined) continue;
      owned.push({ host: name.replace(/_([^_]*)_$/, ':$1'), reason });
    }
  return owned;
}

/** The hosts of the configuration that are left to the distribution. */
export function ownedOf({ upstreams }: Config, { ownedHosts }: NodeSight): readonly OwnedHost[] {
  return ownedHosts.filter(({ host }) => upstreams.has(host));
}
