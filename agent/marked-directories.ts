import { readDiskFile } from './disk-file.ts';
import { listHostDirectories, openHostDirectory } from './host-directory.ts';
import { type Marker, markerOf } from './marker.ts';
import type { Settled } from './state.ts';

/** The host directories with a file of ours, which says so by itself, whatever became of the state directory. */
export async function markedDirectories({
  root,
  certsDir,
  log,
}: Settled): Promise<ReadonlyMap<string, Marker>> {
  const found = new Map<string, Marker>();
  for (const name of await listHostDirectories(certsDir)) {
    try {
      const disk = await readDiskFile((await openHostDirectory(certsDir, name)).file, root);
      const marker = disk.kind === 'file' ? markerOf(disk.text) : undefined;
      if (marker !== undefined) found.set(name, marker);
    } catch (error) {
      // Nothing that we wrote looks like this, and nobody asked for this host.
      log.debug({ err: error, name }, 'a host directory is passed over');
    }
  }
  return found;
}
