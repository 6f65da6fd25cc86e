import { LRUCache } from 'lru-cache';
import { isPlatform } from '../oci/platform.ts';

/** Each node proves itself more often than that. */
const KNOWN_MS = 86_400_000;
/** More than any cluster has; whoever says others pushes the oldest out. */
const MAX_KNOWN = 8;
const MAX_LENGTH = 40;

/** What the nodes are that asked through their doors within the last day. */
export class NodePlatforms {
  readonly #known = new LRUCache<string, true>({ max: MAX_KNOWN, ttl: KNOWN_MS });

  /** Takes note of what a request says (`Weir-Platform`). */
  note(header: string | readonly string[] | undefined): void {
    if (typeof header === 'string' && header.length <= MAX_LENGTH && isPlatform(header))
      this.#known.set(header, true);
  }

  get all(): readonly string[] {
    return [...this.#known.keys()];
  }
}
