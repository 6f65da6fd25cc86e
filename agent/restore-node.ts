import { CertsDirectories } from './certs-directories.ts';
import type { Change } from './change.ts';
import { restoreRuntimeConfiguration } from './configure/restore.ts';
import { CrioFiles } from './crio/crio-files.ts';
import { DockerFiles } from './docker/docker-files.ts';
import { restoreEach } from './restore-failure.ts';
import { forgetPlace } from './rollback.ts';
import type { RuntimeFiles } from './runtime-files.ts';
import { type NodePlace, rememberedDirectories } from './state.ts';

/**
 * Brings everything of a node back to what it was before weir: in every directory that is remembered, and in these,
 * which may have been forgotten, and of each other runtime. Harmless where weir never was, and when it is done twice.
 *
 * @param inUse files that stay as they are.
 * @throws RestoreFailure when some file could not be restored: the others are.
 */
export async function restoreNode(
  place: NodePlace,
  certsDirs: readonly string[],
  inUse?: RuntimeFiles,
): Promise<readonly Change[]> {
  const kept = new Set(inUse instanceof CertsDirectories ? inUse.directories : []);
  const directories = new Set([...certsDirs, ...(await rememberedDirectories(place))]).difference(kept);
  const all: readonly RuntimeFiles[] = [
    new CertsDirectories(place, [...directories]),
    ...(inUse instanceof CrioFiles ? [] : [new CrioFiles(place)]),
    ...(inUse instanceof DockerFiles ? [] : [new DockerFiles(place)]),
  ];
  return restoreEach(all.map((files) => () => files.restore()));
}

/**
 * Leaves a node for good: brings everything back, the runtime's configuration too, and takes away what weir kept there,
 * with the files of these names in the state directory.
 *
 * @throws RestoreFailure when something could not be restored: the rest is, and nothing that was kept is taken away.
 * @throws Error when what was kept cannot be removed.
 */
export async function leaveNode(
  place: NodePlace,
  certsDirs: readonly string[],
  beside: readonly string[],
): Promise<readonly Change[]> {
  const changes = await restoreWholeNode(place, certsDirs);
  await forgetNode(place, certsDirs, beside);
  return changes;
}

/**
 * {@link restoreNode}, and the runtime's configuration.
 *
 * @throws RestoreFailure when something could not be restored: the rest is.
 */
export async function restoreWholeNode(
  place: NodePlace,
  certsDirs: readonly string[],
): Promise<readonly Change[]> {
  return restoreEach([
    () => restoreNode(place, certsDirs),
    async () => {
      await restoreRuntimeConfiguration({ ...place, root: place.root ?? '/' });
      return [];
    },
  ]);
}

/**
 * Takes away what weir kept on a node that is restored.
 *
 * @throws Error when something cannot be removed.
 */
export async function forgetNode(
  place: NodePlace,
  certsDirs: readonly string[],
  beside: readonly string[],
): Promise<void> {
  for (const certsDir of new Set([...certsDirs, ...(await rememberedDirectories(place))]))
    await forgetPlace({ ...place, certsDir }, beside);
}
