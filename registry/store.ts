import type { Digest } from '../oci/digest.ts';

/**
 * Takes bytes of a blob. The buffer belongs to the caller again once the promise has resolved, which is what
 * lets one buffer serve a whole blob.
 */
export type Write = (chunk: Uint8Array) => Promise<void>;

/** Offsets in bytes, both included, as in a Range header. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * The one range that a client asks for while the blob's size is not known yet: RFC 9110's `first-last`, `first-`
 * and `-suffix`.
 */
export type AskedRange = { readonly first: number; readonly last?: number } | { readonly suffix: number };

/** A blob that can be read, as often as wanted, until it is closed. */
export interface StoredBlob {
  readonly size: number;
  /** @throws Error when the store fails or the signal aborts; the bytes that were written are right. */
  copyTo(write: Write, range: ByteRange, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** What a repository of an upstream is known to hold. Registry hosts and names were checked by their parsers. */
export interface RepositoryKey {
  readonly host: string;
  readonly repository: string;
}

/** Says that a digest was pulled under a repository. Blobs are shared by all, the right to read them is not. */
export interface Link {
  /** As the upstream named it; only of manifests. */
  readonly mediaType?: string;
  /** In bytes, so that a stored blob that was cut short is known. */
  readonly size?: number;
}

export interface TagRecord {
  readonly digest: Digest;
  /** Milliseconds since the epoch at which the upstream last confirmed it. */
  readonly checkedAt: number;
  /**
   * Of the manifest, where it was known when the tag was written. It then says what the digest's link would, and
   * spares reading that.
   */
  readonly mediaType?: string;
}

/** What an upstream said when it was asked what refers to a manifest. */
export interface ReferrersRecord {
  /** Of the list, which is kept as a blob that no repository is linked to; left out when it had none to give. */
  readonly list?: Digest;
  /** Milliseconds since the epoch at which it said so. */
  readonly checkedAt: number;
}

/**
 * Where pulled content is kept. Whoever writes has compared the bytes with their digest before; a reader never
 * sees half of them. An error is thrown for a failure, never given as an absence.
 */
export interface Store {
  stat(digest: Digest): Promise<{ readonly size: number } | undefined>;
  /**
   * `asked` says which bytes will be wanted, so that a store that is far away asks for them and for the size at
   * once. It promises nothing: any range can be copied from the blob, and the range may lie outside of it.
   */
  open(digest: Digest, asked?: AskedRange): Promise<StoredBlob | undefined>;
  /** Stores bytes that are at hand, such as a manifest. */
  put(digest: Digest, bytes: Uint8Array): Promise<void>;
  /** Stores what stands complete in a local file, which stays the caller's. */
  putFile(digest: Digest, path: string): Promise<void>;
  link(key: RepositoryKey, digest: Digest): Promise<Link | undefined>;
  putLink(key: RepositoryKey, digest: Digest, link: Link): Promise<void>;
  tag(key: RepositoryKey, tag: string): Promise<TagRecord | undefined>;
  putTag(key: RepositoryKey, tag: string, record: TagRecord): Promise<void>;
  removeTag(key: RepositoryKey, tag: string): Promise<void>;
  /** Removes a blob that turned out to be damaged; one that is not there is as wanted. */
  remove(digest: Digest): Promise<void>;
  /** Every blob that is stored, in no order. This may list; nothing that a pull needs does. */
  digests(): AsyncIterable<Digest>;
  /** What refers to the manifest of this digest. */
  referrers(key: RepositoryKey, subject: Digest): Promise<ReferrersRecord | undefined>;
  putReferrers(key: RepositoryKey, subject: Digest, record: ReferrersRecord): Promise<void>;
}
