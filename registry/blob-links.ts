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

  /** Whether any repository of the target's host brought the blob in. */
  async isFromHost(target: Target, digest: Digest, trouble: StoreTrouble): Promise<boolean> {
    return (await trouble.read(this.#store.link(hostKey(target), digest))) !== undefined;
  }

  /** Notes that the upstream has the blob in this repository. @throws Error of the store. */
  async put(target: Target, digest: Digest, link: Link): Promise<void> {
    const key = keyOf(target);
    const there = await this.#store.link(key, digest);
    // A manifest's link says more, and stays.
    if (there === undefined) await this.#store.putLink(key, digest, link);
    if ((await this.#store.link(hostKey(target), digest)) === undefined)
      await this.#store.putLink(hostKey(target), digest, {});
    this.#known.set(digestName(target, digest), there ?? link);
  }
}

function hostKey({ upstream }: Target): RepositoryKey {
  return { host: upstream.host, repository: WHOLE_HOST };
}
