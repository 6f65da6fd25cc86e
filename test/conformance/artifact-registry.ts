// An upstream with the referrers API, which the reference registry lacks.

import { join } from 'node:path';
import { provide } from '../tools/cache.ts';
import { start } from '../tools/child.ts';
import { goModule } from '../tools/go-module.ts';

export interface ArtifactRegistry {
  readonly endpoint: string;
  /** It keeps everything in memory, so that nothing of it is left. */
  down: () => Promise<void>;
}

/** With the repository, which it would deny before the first push, against the specification ("Listing Referrers"). */
export async function startArtifactRegistry(repository: string): Promise<ArtifactRegistry> {
  const command = join(await provide(goModule('artifacts')), 'oci-registry');
  const listens = /^listening on (http:\S+)$/;
  const server = await start(command, [], { ready: (child) => child.line(listens) });
  const endpoint = listens.exec(await server.line(listens))?.[1] ?? '';
  const upload = await fetch(`${endpoint}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
  if (upload.status !== 202) throw new Error(`${repository} was not made: ${upload.status}`);
  return {
    endpoint,
    down: async () => void (await server.stop()),
  };
}
