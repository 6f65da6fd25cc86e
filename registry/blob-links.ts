import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { Link, RepositoryKey, Store } from './store.ts';
import type { StoreTrouble } from './store-trouble.ts';
import { digestName, keyOf, type Target } from './target.ts';

const MAX_LINKS = 200_000;
/** Stands for the whole registry host; no name of a repository begins with `_`. */
const WHOLE_HOST = '_host';

/**
 * Which repositories a blob was pulled under, and from which registry hosts. Its bytes are stored once; what one
 * host sent is never handed out as another's, and what one repository has is another's only if the host says so.
 */
export class BlobLinks {
  readonly #store: Store;
  /** Links are never taken back, so knowing of one spares the store a look. */
  readonly #known = new LRUCache<string, Link>({ max: MAX_LINKS });

  constructor(store: Store) {
    this.#store = store;
  }

  /** Whether the link is known without a look at the store. */
  knows(target: Target, digest: Digest): boolean {
    return this.#known.has(digestName(target, digest));
  }

  async find(target: Target, digest: Digest, trouble: StoreTrouble): Promise<Link | undefined> {
    const name = digestName(target, digest);
    const known = this.#known.get(name) ?? (await trouble.read(this.#store.link(keyOf(target), digest)));
    if (known !== undefined) this.#known.set(name, known);
    return known;
  }

  /** What is known of the blob when any repository of the target's host brought it in. */
  async ofHost(target: Target, digest: Digest, trouble: StoreTrouble): Promise<Link | undefined> {
    return await trouble.read(this.#store.link(hostKey(target), digest));
  }

  /** Notes that the upstream has the blob in this repository. @throws Error of the store. */
  async put(target: Target, digest: Digest, link: Link): Promise<void> {
    const name = digestName(target, digest);
    // The upstream has said so, whatever becomes of it in the store.
    if (!this.#known.has(name)) this.#known.set(name, link);
    this.#known.set(name, await this.#note(keyOf(target), digest, link));
    await this.#note(hostKey(target), digest, link);
  }

  /** Writes a link that says more than the one that is there; a manifest's keeps what it has. */
  async #note(key: RepositoryKey, digest: Digest, link: Link): Promise<Link> {
    const there = await this.#store.link(key, digest);
    if (there !== undefined && (there.size !== undefined || link.size === undefined)) return there;
    const complete = { ...there, ...link };
    await this.#store.putLink(key, digest, complete);
    return complete;
  }
}

function hostKey({ upstream }: Target): RepositoryKey {
  return { host: upstream.host, repository: WHOLE_HOST };
}
