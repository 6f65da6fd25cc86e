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

/** How a configured registry host stands on this node. */
export type HostState =
  | { readonly kind: 'configured' }
  /** Somebody edited our file: it is theirs until they delete it. */
  | { readonly kind: 'overridden'; readonly reason: string }
  /** There is a file that we cannot read, so merging would lose what it says. */
  | { readonly kind: 'unparsable'; readonly reason: string }
  | { readonly kind: 'failed'; readonly reason: string }
  /** The runtime of this node cannot be told of this host, or its files belong to somebody else. */
  | { readonly kind: 'unsupported'; readonly reason: string }
  /** The mirror is ill: the node goes to the upstream until it is well again. */
  | { readonly kind: 'withdrawn'; readonly reason: string };
