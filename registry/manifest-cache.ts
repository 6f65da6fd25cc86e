import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { Freshness, type Inquiry, type Origin } from './freshness.ts';
import { SingleFlight } from './single-flight.ts';
import { readIntact } from './small-blob.ts';
import type { Store, TagRecord } from './store.ts';
import { StoreTrouble } from './store-trouble.ts';
import { StoreWrites } from './store-writes.ts';
import { digestName, keyOf, nameOf, type Target } from './target.ts';
import { MAX_MANIFEST_BYTES, type Manifest, type UpstreamClient } from './upstream.ts';
import { isOfHeadAlone } from './upstream-failure.ts';

const MEMORY_BYTES = 64 * 1024 * 1024;
const MAX_TAGS = 20_000;
/** How an upstream that is ill answers, whatever it is asked for. */
const FAILING: ReadonlySet<number | undefined> = new Set([500, 502, 503, 504]);
/** Of the types that one client names. */
const MAX_ACCEPTED = 16;

export interface ManifestAnswer {
  readonly manifest: Manifest;
  /** What is asked for by its digest is a `hit` or a `miss`. */
  readonly origin: Origin;
  /** Milliseconds since the time to live was over; 0 while it is fresh. */
  readonly overdue: number;
}

export interface ManifestCacheOptions {
  readonly store: Store;
  readonly upstream: UpstreamClient;
  readonly log: Logger;
  /** Is told of every manifest that was fetched. */
  readonly onFetched: (target: Target, manifest: Manifest) => void;
  /** Ends requests to upstreams; those of clients that left go on until then. */
  readonly signal: AbortSignal;
}

/** Manifests and the tags that point to them, from memory, the store, or the upstream. */
export class ManifestCache {
  readonly #options: ManifestCacheOptions;
  readonly #manifests = new LRUCache<string, Manifest>({
    maxSize: MEMORY_BYTES,
    sizeCalculation: ({ bytes }) => bytes.length + 256,
  });
  readonly #fetches = new SingleFlight<Manifest>();
  readonly #writes: StoreWrites;
  readonly #tags: Freshness<TagRecord>;

  constructor(options: ManifestCacheOptions) {
    this.#options = options;
    this.#writes = new StoreWrites(options);
    this.#tags = new Freshness(new LRUCache({ max: MAX_TAGS }), this.#writes, options.log);
  }

  /** Resolves when nothing is being written to the store any more. */
  async close(): Promise<void> {
    await this.#writes.close();
  }

  /** @throws UpstreamFailure, or Error of the store. */
  async byDigest(target: Target, digest: Digest, accept: string): Promise<ManifestAnswer> {
    const trouble = new StoreTrouble(this.#options.log);
    return trouble.around(() => this.#byDigest(target, digest, accept, trouble));
  }

  async #byDigest(
    target: Target,
    digest: Digest,
    accept: string,
    trouble: StoreTrouble,
    mediaType?: string,
  ): Promise<ManifestAnswer> {
    const stored = await this.#known(target, digest, trouble, mediaType);
    // Somebody else may have fetched it meanwhile.
    const known = stored ?? this.#manifests.get(digestName(target, digest));
    if (known !== undefined) return { manifest: known, origin: 'hit', overdue: 0 };
    const manifest = await this.#fetches.run(digestName(target, digest), () =>
      this.#fetch(target, digest, accept),
    );
    return { manifest, origin: 'miss', overdue: 0 };
  }

  /** @throws UpstreamFailure, or Error of the store. */
  async byTag(target: Target, tag: string, accept: string): Promise<ManifestAnswer> {
    const trouble = new StoreTrouble(this.#options.log);
    return trouble.around(() => this.#byTag(target, tag, accept, trouble));
  }

  async #byTag(target: Target, tag: string, accept: string, trouble: StoreTrouble): Promise<ManifestAnswer> {
    const { record, origin, overdue } = await this.#tags.resolve(this.#inquiry(target, tag, accept, trouble));
    const found = await this.#byDigest(target, record.digest, accept, trouble, record.mediaType);
    // That the tag could not be confirmed says more than where the manifest came from.
    const isMiss = found.origin === 'miss' && origin !== 'stale';
    return { manifest: found.manifest, origin: isMiss ? 'miss' : origin, overdue };
  }

  #inquiry(target: Target, tag: string, accept: string, trouble: StoreTrouble): Inquiry<TagRecord> {
    const { store } = this.#options;
    const key = keyOf(target);
    return {
      name: `${nameOf(target)}:${tag}`,
      times: target.upstream.tags,
      stored: () => trouble.read(store.tag(key, tag)),
      ask: async (known) => {
        const told = known && (await this.#told(target, tag, accept));
        if (known !== undefined && told === known.digest)
          return { record: { ...known, checkedAt: Date.now() }, origin: 'revalidated' };
        const { digest, mediaType } = await this.#fetch(target, tag, accept);
        return { record: { digest, mediaType, checkedAt: Date.now() }, origin: 'miss' };
      },
      store: (record) => store.putTag(key, tag, record),
      remove: () => store.removeTag(key, tag),
    };
  }

  /** The digest of a tag as a HEAD tells it; `undefined` where only a GET can. @throws UpstreamFailure */
  async #told(target: Target, tag: string, accept: string): Promise<string | undefined> {
    const { upstream, signal } = this.#options;
    try {
      return await upstream.resolve(target, tag, acceptOf(accept), signal);
    } catch (error) {
      // One that fails is not asked twice: what is known is to go out soon.
      if (!isOfHeadAlone(error) || FAILING.has(error.status)) throw error;
      return undefined;
    }
  }

  /** From memory or the store, as far as it was pulled under this repository. */
  async #known(
    target: Target,
    digest: Digest,
    trouble: StoreTrouble,
    typeOfTag: string | undefined,
  ): Promise<Manifest | undefined> {
    const name = digestName(target, digest);
    const inMemory = this.#manifests.get(name);
    if (inMemory !== undefined) return inMemory;
    const { store } = this.#options;
    // A tag's record says of its repository what the link would.
    const mediaType = typeOfTag ?? (await trouble.read(store.link(keyOf(target), digest)))?.mediaType;
    if (mediaType === undefined) return undefined;
    const bytes = await readIntact(digest, MAX_MANIFEST_BYTES, { ...this.#options, trouble });
    if (bytes === undefined) return undefined;
    const manifest = { digest, mediaType, bytes };
    this.#manifests.set(name, manifest);
    return manifest;
  }

  async #fetch(target: Target, reference: string, accept: string): Promise<Manifest> {
    const { store, upstream, signal } = this.#options;
    const manifest = await upstream.manifest(target, reference, acceptOf(accept), signal);
    const { digest, mediaType, bytes } = manifest;
    const name = digestName(target, digest);
    this.#manifests.set(name, manifest);
    this.#options.onFetched(target, manifest);
    this.#writes.add(name, async () => {
      await store.put(digest, bytes);
      await store.putLink(keyOf(target), digest, { mediaType, size: bytes.length });
    });
    return manifest;
  }
}

/**
 * What the upstream may answer with: all that there is, and what the client names beyond that. A tag then stands
 * for what the registry really holds, whichever client asked first.
 */
function acceptOf(accept: string): string {
  const named = accept
    .split(',', MAX_ACCEPTED)
    .map((type) => type.split(';', 1)[0]?.trim() ?? '')
    .filter((type) => /^application\/[a-z0-9.+-]{1,100}$/.test(type));
  return [...new Set([...MANIFEST_TYPES, ...named])].join(', ');
}
