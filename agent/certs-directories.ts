import { applyConfig } from './certs-directory.ts';
import type { Change, HostState } from './change.ts';
import { restoreEach } from './restore-failure.ts';
import { rollback } from './rollback.ts';
import type { Outcome, RuntimeFiles, Wanted } from './runtime-files.ts';
import type { Place } from './state.ts';

/** hosts.toml files, alike in every directory from which a containerd may read them. */
export class CertsDirectories implements RuntimeFiles {
  readonly directories: readonly string[];
  readonly #place: Omit<Place, 'certsDir'>;

  constructor(place: Omit<Place, 'certsDir'>, directories: readonly string[]) {
    this.#place = place;
    this.directories = directories;
  }

  async apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
    const outcomes: Outcome[] = [];
    for (const certsDir of this.directories)
      outcomes.push(await applyConfig({ ...this.#place, certsDir }, wanted, signal));
    return outcomes.reduce(both);
  }

  restore(): Promise<readonly Change[]> {
    return restoreEach(this.directories.map((certsDir) => () => rollback({ ...this.#place, certsDir })));
  }
}

/** A host is as it stands in the directory where it stands worse: which one the runtime reads is not known. */
function both(one: Outcome, other: Outcome): Outcome {
  const states = new Map(one.states);
  for (const [host, state] of other.states) states.set(host, worse(states.get(host), state));
  return {
    changes: [...one.changes, ...other.changes],
    states,
    canary: other.canary === undefined ? one.canary : worse(one.canary, other.canary),
    failures: [...one.failures, ...other.failures],
  };
}

const RANKS: readonly HostState['kind'][] = [
  'configured',
  'overridden',
  'unparsable',
  'unsupported',
  'failed',
];

function worse(one: HostState | undefined, other: HostState): HostState {
  return one !== undefined && RANKS.indexOf(one.kind) >= RANKS.indexOf(other.kind) ? one : other;
}
