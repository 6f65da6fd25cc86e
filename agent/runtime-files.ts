import type { Config } from '../config/config.ts';
import type { Change, HostState } from './change.ts';

/** Where the nodes find our registry, and what they shall ask it for. */
export interface Wanted {
  readonly config: Config;
  readonly mirror: string;
  /** PEM of the authority that signs its certificate, where the runtime would not trust that by itself. */
  readonly mirrorCa?: string | undefined;
  /** Whether the node is to find the canary as well, which proves that its runtime reads these files. */
  readonly canary?: boolean;
}

export interface Outcome {
  readonly changes: readonly Change[];
  /** Of every host that is configured. */
  readonly states: ReadonlyMap<string, HostState>;
  /** Of the canary's file; `undefined` when there is to be none. */
  readonly canary: HostState | undefined;
  /** One for each host, or directory of a former host, that could not be brought to where it shall be. */
  readonly failures: readonly Error[];
}

/** The files by which one runtime of a node is told of registry hosts. */
export interface RuntimeFiles {
  /** Directories of the node in which a change is looked at as soon as it is made. */
  readonly directories: readonly string[];
  /**
   * Brings the files to what the configuration says, and hosts that are in it no more to what was there before weir.
   * A second run changes nothing. What fails for one host is among the outcome's failures and stops no other.
   *
   * @throws Error when nothing at all can be read or written.
   */
  apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome>;
  /**
   * Brings everything back to what it was before weir, byte for byte; harmless when it is done twice.
   *
   * @throws RestoreFailure with one error for each file that could not be restored: the others are.
   */
  restore(): Promise<readonly Change[]>;
}
