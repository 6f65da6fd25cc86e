import { stat } from 'node:fs/promises';
import type { Logger } from 'pino';
import { BLOB_TYPE } from '../oci/descriptor.ts';
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts';
import { parseLink, parseReferrersRecord, parseTag } from './records.ts';
import { S3Availability } from './s3-availability.ts';
import { S3Blob, type S3BlobOptions, type S3Body } from './s3-blob.ts';
import { type Metadata, S3Bucket, type S3Head } from './s3-bucket.ts';
import { connectionTo } from './s3-connection.ts';
import { failureOf, hidesReason, S3Failure, statusOf } from './s3-failure.ts';
import { isOurLayout, LAYOUT_MARKER, S3Keys } from './s3-keys.ts';
import type { S3Location } from './s3-location.ts';
import { sweepRegularly } from './s3-sweep.ts';
import { PartUploader } from './s3-upload.ts';
import type {
  AskedRange,
  Link,
  ReferrersRecord,
  RepositoryKey,
  Store,
  StoredBlob,
  TagRecord,
} from './store.ts';

const RECORD_TYPE = 'application/json';
/**
 * Says in a blob's object which bytes were written there: whoever overwrites it with others, of as many bytes even,
 * takes that away. It costs no request, as an answer with the object tells it.
 */
const DIGEST_METADATA = 'weir-digest';

export interface S3StoreOptions {
  readonly log: Logger;
  /** Where `ca` of the location is looked for, when it is no absolute path. */
  readonly caDirectory?: string;
  /** The prefix must hold a store already; none is begun there. */
  readonly mustExist?: boolean;
  /** Ends what is under way, and the sweeping. */
  readonly signal: AbortSignal;
}

/**
 * The store in a bucket, shared by any number of replicas: see docs/s3-layout.md for its keys. S3 shows an object
 * only when it is complete, so nothing has to be moved into place.
 *
 * No read lists anything. `open`, `stat` of what is there, `link` and `tag` are one request each.
 */
export class S3Store implements Store {
  readonly #location: S3Location;
  readonly #keys: S3Keys;
  readonly #options: S3StoreOptions;
  readonly #bucket: S3Bucket;
  readonly #availability: S3Availability;
  readonly #uploader = new PartUploader();
  #layoutIsChecked = false;

  private constructor(location: S3Location, options: S3StoreOptions, bucket: S3Bucket) {
    this.#location = location;
    this.#keys = new S3Keys(location.prefix);
    this.#options = options;
    this.#availability = new S3Availability(
      () => this.#named('read', this.#keys.marker, () => this.#checkLayout()),
      options.signal,
    );
    this.#bucket = bucket;
  }

  /**
   * A server that does not answer is no error here, as it may answer later: {@link problem} tells it, everything
   * throws meanwhile, and the first request that finds the server makes up for what was not checked.
   *
   * @throws S3Failure when the server refuses the credentials, the bucket or the access, or the prefix holds
   * something else or a later layout; Error when the CA bundle cannot be read.
   */
  static async open(location: S3Location, options: S3StoreOptions): Promise<S3Store> {
    const connection = await connectionTo(location, options.caDirectory);
    const bucket = new S3Bucket(location.bucket, connection, options.signal);
    const store = new S3Store(location, options, bucket);
    try {
      await store.#attempt('read', store.#keys.marker, async () => undefined);
    } catch (error) {
      if (!(error instanceof S3Failure) || error.kind !== 'unreachable') {
        bucket.close();
        throw error;
      }
      options.log.error(
        { err: error },
        'the store does not answer; pulls are served from the upstreams meanwhile',
      );
    }
    void sweepRegularly((before) => store.sweep(before), options);
    return store;
  }

  /** Why the last request failed, in one line; `undefined` when it did not. For `/readyz` and metrics. */
  get problem(): string | undefined {
    return this.#availability.problem?.message;
  }

  async stat(digest: Digest): Promise<{ size: number } | undefined> {
    const key = this.#keys.blob(digest);
    return await this.#attempt('look up', key, async () => {
      const head = await this.#head(key);
      return head !== undefined && isWritten(digest, head) ? { size: head.size } : undefined;
    });
  }

  async open(digest: Digest, asked?: AskedRange): Promise<StoredBlob | undefined> {
    const key = this.#keys.blob(digest);
    return await this.#attempt('read', key, async () => {
      try {
        const found = await this.#bucket.get(key, { range: asked });
        if (found !== undefined && !isWritten(digest, found)) {
          found.stream.destroy();
          this.#options.log.error(
            { digest, key },
            'a stored blob was overwritten by somebody else; it is fetched again',
          );
          return undefined;
        }
        return found && this.#blob(key, found.size, { etag: found.etag, opened: found });
      } catch (error) {
        // No byte of the blob is in the range, or it has none at all.
        if (statusOf(error) !== 416) throw error;
        const head = await this.#head(key);
        return head !== undefined && isWritten(digest, head) ? this.#blob(key, head.size) : undefined;
      }
    });
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const key = this.#keys.blob(digest);
    await this.#attempt('write', key, async () => {
      if (!(await this.#isThere(key, digest))) await this.#putBlob(digest, bytes);
    });
  }

  async putFile(digest: Digest, path: string): Promise<void> {
    const key = this.#keys.blob(digest);
    const { size } = await stat(path);
    await this.#attempt('write', key, async () => {
      if (await this.#isThere(key, digest)) return;
      if (size <= this.#uploader.partBytes)
        await this.#uploader.withWhole(path, size, (bytes) => this.#putBlob(digest, bytes));
      else
        await this.#uploader.upload(path, size, () =>
          this.#bucket.beginUpload(key, BLOB_TYPE, metadataOf(digest)),
        );
    });
  }

  async link(key: RepositoryKey, digest: Digest): Promise<Link | undefined> {
    return await this.#readRecord(this.#keys.link(key, digest), parseLink);
  }

  async putLink(key: RepositoryKey, digest: Digest, link: Link): Promise<void> {
    await this.#writeRecord(this.#keys.link(key, digest), link);
  }

  async tag(key: RepositoryKey, tag: string): Promise<TagRecord | undefined> {
    return await this.#readRecord(this.#keys.tag(key, tag), parseTag);
  }

  async putTag(key: RepositoryKey, tag: string, record: TagRecord): Promise<void> {
    await this.#writeRecord(this.#keys.tag(key, tag), record);
  }

  async removeTag(key: RepositoryKey, tag: string): Promise<void> {
    await this.#remove(this.#keys.tag(key, tag));
  }

  async remove(digest: Digest): Promise<void> {
    await this.#remove(this.#keys.blob(digest));
  }

  async *digests(): AsyncIterable<Digest> {
    let from: string | undefined;
    do {
      const page = await this.#attempt('list', this.#keys.blobs, () =>
        this.#bucket.list(this.#keys.blobs, from),
      );
      for (const key of page.keys) {
        const digest = this.#keys.digestOf(key);
        if (digest !== undefined) yield digest;
      }
      from = page.next;
    } while (from !== undefined);
  }

  async referrers(key: RepositoryKey, subject: Digest): Promise<ReferrersRecord | undefined> {
    return await this.#readRecord(this.#keys.referrers(key, subject), parseReferrersRecord);
  }

  async putReferrers(key: RepositoryKey, subject: Digest, record: ReferrersRecord): Promise<void> {
    await this.#writeRecord(this.#keys.referrers(key, subject), record);
  }

  /**
   * Aborts uploads of ours that were begun before the given time, as a replica that was killed leaves them. A
   * bucket keeps, and bills, their parts for ever.
   *
   * @returns how many there were.
   */
  async sweep(before: Date): Promise<number> {
    return await this.#attempt('list uploads of', this.#keys.blobs, async () => {
      const stale = (await this.#bucket.uploads(this.#keys.blobs)).filter(({ begun }) => begun < before);
      for (const { key, id } of stale) await this.#bucket.abortUpload(key, id);
      return stale.length;
    });
  }

  /** Names what fails, and sees to it that nothing is read or written in a layout that is not ours. */
  async #attempt<T>(doing: string, key: string, work: () => Promise<T>): Promise<T> {
    return await this.#availability.attempt(() =>
      this.#named(doing, key, async () => {
        if (!this.#layoutIsChecked) await this.#checkLayout();
        return await work();
      }),
    );
  }

  async #named<T>(doing: string, key: string, work: () => Promise<T>): Promise<T> {
    this.#options.signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (this.#options.signal.aborted) throw error;
      throw failureOf(doing, key, this.#location, error);
    }
  }

  async #checkLayout(): Promise<void> {
    const key = this.#keys.marker;
    const found = await this.#bucket.text(key);
    if (found === undefined && this.#options.mustExist === true) {
      const { bucket, prefix } = this.#location;
      throw new S3Failure(
        'refused',
        `s3://${bucket}/${prefix} holds no store of weir; look at the prefix that the registry was given`,
      );
    }
    if (found === undefined) {
      await this.#bucket.put(key, { bytes: Buffer.from(LAYOUT_MARKER), type: RECORD_TYPE });
    } else if (!isOurLayout(found)) {
      const name = `s3://${this.#location.bucket}/${key}`;
      throw new S3Failure(
        'refused',
        `${name} is of another kind or a later version; give weir a prefix of its own, as in s3://${this.#location.bucket}/PREFIX`,
      );
    }
    this.#layoutIsChecked = true;
  }

  async #isThere(key: string, digest: Digest): Promise<boolean> {
    const head = await this.#bucket.headForWrite(key);
    return head !== undefined && isWritten(digest, head);
  }

  async #head(key: string): Promise<S3Head | undefined> {
    try {
      return await this.#bucket.head(key);
    } catch (error) {
      if (!hidesReason(error)) throw error;
      // The answer about the marker has a body, which tells what is wrong if it is more than this one object.
      await this.#bucket.text(this.#keys.marker);
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  async #putBlob(digest: Digest, bytes: Uint8Array): Promise<void> {
    const sha256 = algorithmOf(digest) === 'sha256' ? hexOf(digest) : undefined;
    await this.#bucket.put(this.#keys.blob(digest), {
      bytes,
      type: BLOB_TYPE,
      metadata: metadataOf(digest),
      sha256,
    });
  }

  async #remove(key: string): Promise<void> {
    await this.#attempt('remove', key, () => this.#bucket.remove(key));
  }

  async #readRecord<T>(key: string, parse: (text: string) => T | undefined): Promise<T | undefined> {
    return await this.#attempt('read', key, async () => {
      const found = await this.#bucket.text(key);
      return found === undefined ? undefined : parse(found);
    });
  }

  async #writeRecord(key: string, record: object): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(record));
    await this.#attempt('write', key, () => this.#bucket.put(key, { bytes, type: RECORD_TYPE }));
  }

  /** What was asked for already is the beginning of it, and the ETag that of the version that is read on. */
  #blob(key: string, size: number, begun: { etag?: string | undefined; opened?: S3Body } = {}): StoredBlob {
    const fetch: S3BlobOptions['fetch'] = async ({ start, end }, signal) => {
      try {
        const wanted = { range: { first: start, last: end }, etag: begun.etag };
        const found = await this.#bucket.get(key, wanted, signal);
        if (found === undefined) throw new Error('the object is gone');
        const { range, stream } = found;
        if (range.start === start && range.end === end) return stream;
        stream.destroy();
        throw new Error(`bytes ${start}-${end} were asked for, ${range.start}-${range.end} came`);
      } catch (error) {
        throw failureOf('read', key, this.#location, error);
      }
    };
    const name = `s3://${this.#location.bucket}/${key}`;
    return new S3Blob({ size, opened: begun.opened, fetch, name });
  }
}

function metadataOf(digest: Digest): Metadata {
  return { [DIGEST_METADATA]: digest };
}

function isWritten(digest: Digest, { metadata }: { readonly metadata: Metadata }): boolean {
  return metadata[DIGEST_METADATA] === digest;
}
