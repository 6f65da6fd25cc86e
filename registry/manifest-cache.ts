import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts';
import { keepTrying } from './keep-trying.ts';
import { SingleFlight } from './single-flight.ts';
import { readSmallBlob } from './small-blob.ts';
import type { Store, TagRecord } from './store.ts';
import { StoreTrouble } from './store-trouble.ts';
import { digestName, keyOf, nameOf, type Target } from './target.ts';
import { MAX_MANIFEST_BYTES, type Manifest, type UpstreamClient } from './upstream.ts';
import { UpstreamFailure, unavailable } from './upstream-failure.ts';
import { within } from './within.ts';

const MEMORY_BYTES = 64 * 1024 * 1024;
const MAX_TAGS = 20_000;
/** Of the types that one client names. */
const MAX_ACCEPTED = 16;
/** An upstream that failed for a tag is not asked for it again within this time. */
const RETRY_AFTER_MS = 10_000;

export interface ManifestAnswer {
  readonly manifest: Manifest;
  /**
   * - `hit`: known, and for a tag confirmed within its time to live;
   * - `miss`: fetched for this request;
   * - `revalidated`: the upstream confirmed the tag for this request;
   * - `revalidating`: the upstream is being asked, the known answer went out meanwhile;
   * - `stale`: the upstream could not confirm the tag.
   */
  readonly origin: 'hit' | 'miss' | 'revalidated' | 'revalidating' | 'stale';
  /** Milliseconds since the upstream last confirmed the tag. */
  readonly age: number;
}

interface Resolution {
  readonly digest: Digest;
  readonly origin: ManifestAnswer['origin'];
  readonly age: number;
  /** The manifest, where resolving the tag fetched it. */
  readonly manifest?: Manifest;
  /** Its type, where the tag's record has it. */
  readonly mediaType?: string | undefined;
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
  readonly #tags = new LRUCache<string, TagRecord>({ max: MAX_TAGS });
  readonly #failures = new LRUCache<string, UpstreamFailure>({ max: MAX_TAGS, ttl: RETRY_AFTER_MS });
  readonly #fetches = new SingleFlight<Manifest>();
  readonly #resolutions = new SingleFlight<Resolution>();

  /** What is being written to the store. */
  readonly #keeping = new Set<Promise<void>>();

  constructor(options: ManifestCacheOptions) {
    this.#options = options;
  }

  /** Resolves when nothing is being written to the store any more. */
  async close(): Promise<void> {
    await Promise.all(this.#keeping);
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
    if (known !== undefined) return { manifest: known, origin: 'hit', age: 0 };
    const manifest = await this.#fetches.run(digestName(target, digest), () =>
      this.#fetch(target, digest, accept),
    );
    return { manifest, origin: 'miss', age: 0 };
  }

  /** @throws UpstreamFailure, or Error of the store. */
  async byTag(target: Target, tag: string, accept: string): Promise<ManifestAnswer> {
    const trouble = new StoreTrouble(this.#options.log);
    return trouble.around(() => this.#byTag(target, tag, accept, trouble));
  }

  async #byTag(target: Target, tag: string, accept: string, trouble: StoreTrouble): Promise<ManifestAnswer> {
    const { digest, origin, age, manifest, mediaType } = await this.#resolve(target, tag, accept, trouble);
    if (manifest !== undefined) return { manifest, origin, age };
    const found = await this.#byDigest(target, digest, accept, trouble, mediaType);
    return { manifest: found.manifest, origin: found.origin === 'miss' ? 'miss' : origin, age };
  }

  async #resolve(target: Target, tag: string, accept: string, trouble: StoreTrouble): Promise<Resolution> {
    const name = `${nameOf(target)}:${tag}`;
    const stored = this.#tags.has(name)
      ? undefined
      : await trouble.read(this.#options.store.tag(keyOf(target), tag));
    // Somebody else may have resolved it meanwhile.
    const record = this.#tags.get(name) ?? stored;
    if (record !== undefined) this.#tags.set(name, record);
    const age = record === undefined ? Number.POSITIVE_INFINITY : Date.now() - record.checkedAt;
    const { ttl, staleWhileRevalidate, budget } = target.upstream.tags;
    // A clock that was set back makes nothing fresh.
    const isYounger = (limit: number): boolean => age >= 0 && age < limit;
    if (record !== undefined && isYounger(ttl)) return { ...record, origin: 'hit', age };
    if (record !== undefined && this.#failures.has(name)) return { ...record, origin: 'stale', age };

    const asked = this.#resolutions.run(name, () => this.#revalidate(target, tag, record, accept));
    if (record === undefined) return asked;
    if (isYounger(ttl + staleWhileRevalidate)) {
      this.#goOn(asked, name);
      return { ...record, origin: 'revalidating', age };
    }
    try {
      const resolution = await within(budget, asked);
      if (resolution !== undefined) return resolution;
      this.#goOn(asked, name);
      this.#failures.set(name, unavailable(target.upstream, `it did not confirm a tag within ${budget} ms`));
    } catch (error) {
      if (!(error instanceof UpstreamFailure) || error.kind === 'absent') throw error;
      this.#options.log.warn({ err: error, tag: name }, 'the upstream failed, the known tag is served');
    }
    return { ...record, origin: 'stale', age };
  }

  /** Nobody waits for this answer any more, but it is still wanted. */
  #goOn(asked: Promise<unknown>, name: string): void {
    asked.catch((error: unknown) =>
      this.#options.log.warn({ err: error, tag: name }, 'a tag was not confirmed'),
    );
  }

  async #revalidate(
    target: Target,
    tag: string,
    record: TagRecord | undefined,
    accept: string,
  ): Promise<Resolution> {
    const { store, upstream, signal } = this.#options;
    const name = `${nameOf(target)}:${tag}`;
    try {
      const told = record && (await upstream.resolve(target, tag, acceptOf(accept), signal));
      const unchanged = record !== undefined && told === record.digest;
      const manifest = unchanged ? undefined : await this.#fetch(target, tag, accept);
      const digest = manifest?.digest ?? record?.digest;
      if (digest === undefined) throw new Error(`${name} resolved to nothing`);
      const mediaType = manifest?.mediaType ?? record?.mediaType;
      const type = mediaType === undefined ? {} : { mediaType };
      const confirmed: TagRecord = { digest, checkedAt: Date.now(), ...type };
      this.#tags.set(name, confirmed);
      this.#failures.delete(name);
      this.#keep(name, () => store.putTag(keyOf(target), tag, confirmed));
      return {
        digest,
        origin: unchanged ? 'revalidated' : 'miss',
        age: 0,
        ...type,
        ...(manifest && { manifest }),
      };
    } catch (error) {
      if (error instanceof UpstreamFailure && error.kind === 'absent' && record !== undefined) {
        // Gone for good: it must not come back as stale when the upstream fails later.
        this.#tags.delete(name);
        this.#keep(name, () => store.removeTag(keyOf(target), tag));
      } else if (error instanceof UpstreamFailure && error.kind !== 'absent') this.#failures.set(name, error);
      throw error;
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
    const { store, log } = this.#options;
    // A tag's record says of its repository what the link would.
    const mediaType = typeOfTag ?? (await trouble.read(store.link(keyOf(target), digest)))?.mediaType;
    const blob = mediaType === undefined ? undefined : await trouble.read(store.open(digest));
    if (mediaType === undefined || blob === undefined) return undefined;
    try {
      const bytes =
        blob.size > MAX_MANIFEST_BYTES ? Buffer.alloc(0) : await trouble.read(readSmallBlob(blob));
      if (bytes === undefined) return undefined;
      if (digestOf(bytes, algorithmOf(digest)) !== digest) {
        log.error({ digest }, 'a stored manifest is damaged; it is fetched again');
        await trouble.read(store.remove(digest).then(() => undefined));
        return undefined;
      }
      const manifest = { digest, mediaType, bytes };
      this.#manifests.set(name, manifest);
      return manifest;
    } finally {
      await blob.close();
    }
  }

  async #fetch(target: Target, reference: string, accept: string): Promise<Manifest> {
    const { store, upstream, signal } = this.#options;
    const manifest = await upstream.manifest(target, reference, acceptOf(accept), signal);
    const { digest, mediaType, bytes } = manifest;
    const name = digestName(target, digest);
    this.#manifests.set(name, manifest);
    this.#options.onFetched(target, manifest);
    this.#keep(name, async () => {
      await store.put(digest, bytes);
      await store.putLink(keyOf(target), digest, { mediaType, size: bytes.length });
    });
    return manifest;
  }

  /** Nobody waits for the store, and what it does not take now is offered to it again. */
  #keep(what: string, write: () => Promise<void>): void {
    const { log, signal } = this.#options;
    const failed = (error: unknown, pause?: number): void =>
      log.error({ err: error, what, pause }, 'the store failed; served without keeping it');
    const keeping = keepTrying(write, failed, signal)
      .catch((error: unknown) => failed(error))
      .finally(() => this.#keeping.delete(keeping));
    this.#keeping.add(keeping);
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
