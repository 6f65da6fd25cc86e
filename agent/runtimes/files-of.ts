import { CertsDirectories } from '../certs-directories.ts';
import { CrioFiles } from '../crio/crio-files.ts';
import { DockerFiles } from '../docker/docker-files.ts';
import type { SendHangUp } from '../hang-up.ts';
import type { RuntimeFiles } from '../runtime-files.ts';
import type { NodePlace } from '../state.ts';
import type { NodeSight } from './node-sight.ts';

export interface FilesOptions {
  readonly place: NodePlace;
  /** Instead of what was found. */
  readonly certsDir?: string | undefined;
  /** For what only pretends: where the node's /proc is, and what becomes of signals to its processes. */
  readonly pretended?: { readonly processRoot: string; readonly signal: SendHangUp };
}

/** The files by which the runtime of a node is told of registries; `undefined` where it is told nothing. */
export function filesOf(
  { runtime, verdict, certsDirs, laterDirs }: NodeSight,
  { place, certsDir, pretended }: FilesOptions,
): RuntimeFiles | undefined {
  if (certsDir !== undefined) return new CertsDirectories(place, [certsDir]);
  if (verdict.kind !== 'configurable') return undefined;
  if (runtime.value === 'cri-o') return new CrioFiles({ ...place, ...pretended });
  if (runtime.value === 'docker') return new DockerFiles({ ...place, ...pretended });
  return new CertsDirectories({ ...place, laterDirs }, certsDirs);
}
