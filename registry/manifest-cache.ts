import { setTimeout } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { Logger } from 'pino';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import { algorithmOf, type Digest, digestOf, parseDigest } from '../oci/digest.ts';
import { manifestType } from '../oci/manifest.ts';
import { SingleFlight } from './single-flight.ts';
import type { Store, StoredBlob, TagRecord } from './store.ts';
import { digestName, keyOf, nameOf, type Target } from './target.ts';
import { MAX_MANIFEST_BYTES, type UpstreamClient } from './upstream.ts';
import { UpstreamFailure, unavailable } from './upstream-failure.ts';

const MEMORY_BYTES = 64 * 1024 * 1024;
const MAX_TAGS = 20_000;
/** A tag that is known is not waited for longer than this; the known answer goes out instead. */
const STALE_AFTER_MS = 3_000;
/** An upstream that failed for a tag is not asked for it again within this time. */
const RETRY_AFTER_MS = 10_000;

export interface Manifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

export interface ManifestAnswer {
  readonly manifest: Manifest;
  /**
   * - `hit`: known, and for a tag confirmed within its time to live;
   * - `miss`: fetched for this request;
   * - `revalidated`: the upstream confirmed the tag for this request;
   * - `stale`: the upstream could not confirm the tag.
   */
  readonly origin: 'hit' | 'miss' | 'revalidated' | 'stale';
  /** Milliseconds since the upstream last confirmed the tag. */
  readonly age: number;
}

interface Resolution {
  readonly digest: Digest;
  readonly origin: ManifestAnswer['origin'];
  readonly age: number;
  /** The manifest, where resolving the tag fetched it. */
  readonly manifest?: Manifest;
}

export interface ManifestCacheOptions {
  readonly store: Store;
  readonly upstream: UpstreamClient;
  readonly log: Logger;
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

  constructor(options: ManifestCacheOptions) {
    this.#options = options;
  }

  /** @throws UpstreamFailure, or Error of the store. */
  async byDigest(target: Target, digest: Digest, accept: string): Promise<ManifestAnswer> {
    const known = await this.#known(target, digest);
    if (known !== undefined) return { manifest: known, origin: 'hit', age: 0 };
    const manifest = await this.#fetches.run(digestName(target, digest), () =>
      this.#fetch(target, digest, accept),
    );
    return { manifest, origin: 'miss', age: 0 };
  }

  /** @throws UpstreamFailure, or Error of the store. */
  async byTag(target: Target, tag: string, accept: string): Promise<ManifestAnswer> {
    const { digest, origin, age, manifest } = await this.#resolve(target, tag, accept);
    if (manifest !== undefined) return { manifest, origin, age };
    const found = await this.byDigest(target, digest, accept);
    return { manifest: found.manifest, origin: found.origin === 'miss' ? 'miss' : origin, age };
  }

  async #resolve(target: Target, tag: string, accept: string): Promise<Resolution> {
    const name = `${nameOf(target)}:${tag}`;
    const record = this.#tags.get(name) ?? (await this.#options.store.tag(keyOf(target), tag));
    if (record !== undefined) this.#tags.set(name, record);
    const age = record === undefined ? Number.POSITIVE_INFINITY : Date.now() - record.checkedAt;
    // A clock that was set back makes nothing fresh.
    if (record !== undefined && age >= 0 && age < target.upstream.tagTtl)
      return { digest: record.digest, origin: 'hit', age };

    const asked = this.#resolutions.run(name, () => this.#revalidate(target, tag, record, accept));
    if (record === undefined) return asked;
    try {
      const waiting = new AbortController();
      const late = setTimeout(STALE_AFTER_MS, undefined, { signal: waiting.signal }).then(() => undefined);
      const resolution = await Promise.race([asked, late.catch(() => undefined)]).finally(() =>
        waiting.abort(),
      );
      if (resolution !== undefined) return resolution;
      // Nobody waits for the answer any more, but it is still wanted.
      asked.catch((error: unknown) =>
        this.#options.log.warn({ err: error, tag: name }, 'tag was not confirmed'),
      );
    } catch (error) {
      if (!(error instanceof UpstreamFailure) || error.kind === 'absent') throw error;
      this.#options.log.warn({ err: error, tag: name }, 'upstream failed, the known tag is served');
    }
    return { digest: record.digest, origin: 'stale', age };
  }

  async #revalidate(
    target: Target,
    tag: string,
    record: TagRecord | undefined,
    accept: string,
  ): Promise<Resolution> {
    const { store, upstream, signal } = this.#options;
    const name = `${nameOf(target)}:${tag}`;
    const failed = this.#failures.get(name);
    if (failed !== undefined && record !== undefined) throw failed;
    try {
      const told = record && (await upstream.resolve(target, tag, acceptOf(accept), signal));
      const unchanged = record !== undefined && told === record.digest;
      const manifest = unchanged ? undefined : await this.#fetch(target, tag, accept);
      const digest = manifest?.digest ?? record?.digest;
      if (digest === undefined) throw new Error(`${name} resolved to nothing`);
      const confirmed: TagRecord = { digest, checkedAt: Date.now() };
      this.#tags.set(name, confirmed);
      await this.#keep(name, () => store.putTag(keyOf(target), tag, confirmed));
      return { digest, origin: unchanged ? 'revalidated' : 'miss', age: 0, ...(manifest && { manifest }) };
    } catch (error) {
      if (error instanceof UpstreamFailure) this.#failures.set(name, error);
      throw error;
    }
  }

  /** From memory or the store, as far as it was pulled under this repository. */
  async #known(target: Target, digest: Digest): Promise<Manifest | undefined> {
    const name = digestName(target, digest);
    const inMemory = this.#manifests.get(name);
    if (inMemory !== undefined) return inMemory;
    const { store, log } = this.#options;
    const link = await store.link(keyOf(target), digest);
    const blob = link?.mediaType === undefined ? undefined : await store.open(digest);
    if (link?.mediaType === undefined || blob === undefined) return undefined;
    try {
      const bytes = blob.size > MAX_MANIFEST_BYTES ? Buffer.alloc(0) : await readWhole(blob);
      if (digestOf(bytes, algorithmOf(digest)) !== digest) {
        log.error({ digest }, 'the stored manifest is damaged and is fetched again');
        return undefined;
      }
      const manifest = { digest, mediaType: link.mediaType, bytes };
      this.#manifests.set(name, manifest);
      return manifest;
    } finally {
      await blob.close();
    }
  }

  async #fetch(target: Target, reference: string, accept: string): Promise<Manifest> {
    const { store, upstream, signal } = this.#options;
    const {
      bytes,
      mediaType: contentType,
      digest: told,
    } = await upstream.manifest(target, reference, acceptOf(accept), signal);
    const wanted = parseDigest(reference) ?? (told === undefined ? undefined : parseDigest(told));
    const digest = digestOf(bytes, wanted === undefined ? 'sha256' : algorithmOf(wanted));
    if (wanted !== undefined && digest !== wanted)
      throw unavailable(target.upstream, `it sent ${digest} for the manifest ${wanted}`, { reached: true });
    const mediaType = typeOf(target, bytes, contentType);
    const manifest = { digest, mediaType, bytes };
    this.#manifests.set(digestName(target, digest), manifest);
    await this.#keep(digestName(target, digest), async () => {
      await store.put(digest, bytes);
      await store.putLink(keyOf(target), digest, { mediaType });
    });
    return manifest;
  }

  /** What cannot be kept is served all the same. */
  async #keep(what: string, write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#options.log.error({ err: error, what }, 'the store failed; served without keeping it');
    }
  }
}

function typeOf(target: Target, bytes: Buffer, contentType: string | undefined): string {
  try {
    return manifestType(bytes, contentType);
  } catch (cause) {
    throw unavailable(target.upstream, 'it sent no manifest', { reached: true, cause });
  }
}

/**
 * What the upstream may answer with: all that the client names and all that there is. A tag then stands for
 * what the registry really holds, whichever client asked first.
 */
function acceptOf(accept: string): string {
  const named = accept
    .split(',')
    .map((type) => type.trim())
    .filter((type) => type !== '' && type !== '*/*');
  return [...new Set([...named, ...MANIFEST_TYPES])].join(', ');
}

async function readWhole(blob: StoredBlob): Promise<Buffer> {
  const bytes = Buffer.alloc(blob.size);
  let length = 0;
  if (blob.size === 0) return bytes;
  const write = (chunk: Uint8Array): Promise<void> => {
    bytes.set(chunk, length);
    length += chunk.length;
    return Promise.resolve();
  };
  await blob.copyTo(write, { start: 0, end: blob.size - 1 }, new AbortController().signal);
  return bytes;
}
