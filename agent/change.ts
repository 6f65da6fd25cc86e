/** What was done to one registry host's file, or why nothing was. */
export interface Change {
  /**
   * - `written`: a file of ours is new, or follows a changed configuration
   * - `healed`: a file of ours was missing, cut short or unreadable, and is whole again
   * - `restored`: what was there before weir is there again
   * - `removed`: there was nothing before weir, and there is nothing now
   * - `left`: the file is somebody else's, and stays as it is
   */
  readonly kind: 'written' | 'healed' | 'restored' | 'removed' | 'left';
  readonly host: string;
  readonly file: string;
  readonly reason?: string;
}

/** For people why, and in a word for programs where more is known than the state. */
interface Because<Kind extends string> {
  readonly kind: Kind;
  readonly reason: string;
  readonly code?: string;
}

/** How a configured registry host stands on this node. */
export type HostState =
  | { readonly kind: 'configured' }
  /** Somebody edited our file: it is theirs until they delete it. */
  | Because<'overridden'>
  /** There is a file that we cannot read, so merging would lose what it says. */
  | Because<'unparsable'>
  | Because<'failed'>
  /** The runtime of this node cannot be told of this host, or its files belong to somebody else. */
  | Because<'unsupported'>
  /** The mirror is ill: the node goes to the upstream until it is well again. */
  | Because<'withdrawn'>;
