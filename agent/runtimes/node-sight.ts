import type { Located } from './containerd-registry.ts';

/** What weir can do on a node. */
export type SightVerdict =
  /** The runtime reads what is written into the {@link NodeSight.certsDirs}. */
  | { readonly kind: 'configurable' }
  /** The runtime would not read it, or read what is worse, until somebody changes its configuration. */
  | { readonly kind: 'fallback'; readonly reason: string; readonly remedy: string }
  /** This host is not configured by files at all, or not by ones that last. */
  | { readonly kind: 'unsupported'; readonly reason: string; readonly remedy: string };

/** A registry host whose file belongs to the distribution, which writes it anew and may remove ours. */
export interface OwnedHost {
  readonly host: string;
  readonly reason: string;
}

/** How a node's runtime is found, and each fact with where it was read. Paths are the node's own. */
export interface NodeSight {
  readonly distribution: Located<string>;
  /** `containerd`, `cri-o` or `docker`. */
  readonly runtime: Located<'containerd' | 'cri-o' | 'docker'>;
  readonly version: Located<string> | undefined;
  readonly socket: Located<string> | undefined;
  /** containerd's configuration files, in the order in which it reads them. */
  readonly configFiles: readonly string[];
  /** What is in force, the default where no file says any. */
  readonly configPath: Located<string> | undefined;
  /** Why pulls through CRI take a list of directories for what it is, on versions that could take it for one path. */
  readonly localPull: Located<string> | undefined;
  /** Where hosts.toml files are to be written: all of them, each alike. None where the verdict is another one. */
  readonly certsDirs: readonly string[];
  /** Directories that the runtime would look into for a host which the first has no directory for. */
  readonly laterDirs: readonly string[];
  /** Hosts below the {@link NodeSight.certsDirs} that are to be left to the distribution. */
  readonly ownedHosts: readonly OwnedHost[];
  /** Where `config_path` is missing and nothing stands against setting it: the directory to set it to. */
  readonly missingConfigPath: string | undefined;
  readonly verdict: SightVerdict;
  /** What may make the facts wrong, or is good to know. */
  readonly notes: readonly string[];
}

/** Why the node is not configured and what to do about it, in one line; `undefined` where it can be. */
export function reasonOf({ verdict }: NodeSight): string | undefined {
  return verdict.kind === 'configurable' ? undefined : `${verdict.reason}. ${verdict.remedy}`;
}
