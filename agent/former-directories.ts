import { CertsDirectories } from './certs-directories.ts';
import type { Change } from './change.ts';
import { markedDirectories } from './marked-directories.ts';
import { withNodeLock } from './node-lock.ts';
import { pathOnNode } from './node-root.ts';
import { adoptOriginal } from './original.ts';
import { restoreNode } from './restore-node.ts';
import type { RuntimeFiles } from './runtime-files.ts';
import { type NodePlace, openState, settle } from './state.ts';

/**
 * Restores what weir wrote where the runtime does not look any more, since it is another one, or looks elsewhere.
 *
 * A directory in use may be a copy of a former one, as snapd makes it when it refreshes MicroK8s: its files name
 * originals that are kept for that one, and gone once it is restored. So they are adopted first.
 *
 * @throws RestoreFailure when some file could not be restored: the others are.
 */
export async function restoreFormer(
  place: NodePlace,
  inUse: RuntimeFiles | undefined,
): Promise<readonly Change[]> {
  if (!(inUse instanceof CertsDirectories)) return restoreNode(place, [], inUse);
  const real: string[] = [];
  for (const certsDir of inUse.directories) {
    const settled = await settle({ ...place, certsDir });
    await withNodeLock(settled, async () => {
      const { originals } = await openState(settled);
      for (const { was } of (await markedDirectories(settled)).values())
        if (typeof was === 'object') await adoptOriginal(originals, was.original);
    });
    // What is remembered has no symbolic links in it (`/var/snap/microk8s/current`).
    real.push(pathOnNode(settled.root, settled.certsDir));
  }
  return restoreNode(place, [], new CertsDirectories(place, [...inUse.directories, ...real]));
}
