import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  type MultipartUpload,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { Logger } from 'pino';
import { BLOB_TYPE } from '../oci/descriptor.ts';
import { algorithmOf, type Digest } from '../oci/digest.ts';
import { parseLink, parseReferrersRecord, parseTag } from './records.ts';
import { S3Availability } from './s3-availability.ts';
import { S3Blob, type S3Body } from './s3-blob.ts';
import { connectionTo, type S3Connection } from './s3-connection.ts';
import { failureOf, hidesReason, isMissingKey, S3Failure, statusOf } from './s3-failure.ts';
import { isOurLayout, LAYOUT_MARKER, S3Keys } from './s3-keys.ts';
import type { S3Location } from './s3-location.ts';
import { parseContentRange, rangeHeader } from './s3-range.ts';
import { sweepRegularly } from './s3-sweep.ts';
import { type PartUpload, PartUploader } from './s3-upload.ts';
import { readBytes } from './small-body.ts';
import type {
  AskedRange,
  ByteRange,
  Link,
  ReferrersRecord,
  RepositoryKey,
  Store,
  StoredBlob,
  TagRecord,
} from './store.ts';

/** Until an answer with what a pull waits for begins, whichever attempt it is of: the upstream can be asked instead. */
const READ_TIMEOUT_MS = 2_000;
/** Until the answer to up to 8 MiB begins. */
const WRITE_TIMEOUT_MS = 30_000;
/** AWS says that completing an upload "can take several minutes". */
const COMPLETE_TIMEOUT_MS = 600_000;
/** One connection that the server closed while it was idle must not fail a pull; more would keep it waiting. */
const READ_ATTEMPTS = 2;
/** Nobody waits for a write, and one part that fails loses the whole upload. */
const WRITE_ATTEMPTS = 4;
const MAX_RECORD_BYTES = 64 * 1024;
const ABORT_TIMEOUT_MS = 5_000;

export interface S3StoreOptions {
  readonly log: Logger;
  /** Where `ca` of the location is looked for, when it is no absolute path. */
  readonly caDirectory?: string;
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
  readonly #reads: S3Client;
  readonly #writes: S3Client;
  readonly #availability: S3Availability;
  readonly #uploader = new PartUploader();
  #layoutIsChecked = false;

  private constructor(location: S3Location, options: S3StoreOptions, connection: S3Connection) {
    this.#location = location;
    this.#keys = new S3Keys(location.prefix);
    this.#options = options;
    this.#availability = new S3Availability(
      () => this.#named('read', this.#keys.marker, () => this.#checkLayout()),
      options.signal,
    );
    this.#reads = new S3Client({ ...connection, maxAttempts: READ_ATTEMPTS });
    // Credentials are fetched once for both, and connections shared.
    const { credentials } = this.#reads.config;
    this.#writes = new S3Client({ ...connection, credentials, maxAttempts: WRITE_ATTEMPTS });
    options.signal.addEventListener('abort', () => this.#destroy(), { once: true });
  }

  /**
   * A server that does not answer is no error here, as it may answer later: {@link problem} tells it, everything
   * throws meanwhile, and the first request that finds the server makes up for what was not checked.
   *
   * @throws S3Failure when the server refuses the credentials, the bucket or the access, or the prefix holds
   * something else or a later layout; Error when the CA bundle cannot be read.
   */
  static async open(location: S3Location, options: S3StoreOptions): Promise<S3Store> {
    const store = new S3Store(location, options, await connectionTo(location, options.caDirectory));
    try {
      await store.#attempt('read', store.#keys.marker, async () => undefined);
    } catch (error) {
      if (!(error instanceof S3Failure) || error.kind !== 'unreachable') {
        store.#destroy();
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
    return await this.#attempt('look up', key, () => this.#head(key));
  }

  async open(digest: Digest, asked?: AskedRange): Promise<StoredBlob | undefined> {
    const key = this.#keys.blob(digest);
    return await this.#attempt('read', key, async () => {
      const range = asked === undefined ? {} : { Range: rangeHeader(asked) };
      try {
        const found = await this.#get(key, range);
        return found && this.#blobOf(key, found);
      } catch (error) {
        // No byte of the blob is in the range, or it has none at all.
        if (statusOf(error) !== 416) throw error;
        const size = (await this.#head(key))?.size;
        return size === undefined ? undefined : this.#blob(key, size, undefined);
      }
    });
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const key = this.#keys.blob(digest);
    await this.#attempt('write', key, async () => {
      if (!(await this.#isThere(key))) await this.#putObject(key, bytes, BLOB_TYPE, sha256In(digest));
    });
  }

  async putFile(digest: Digest, path: string): Promise<void> {
    const key = this.#keys.blob(digest);
    const { size } = await stat(path);
    await this.#attempt('write', key, async () => {
      if (await this.#isThere(key)) return;
      if (size <= this.#uploader.partBytes)
        await this.#uploader.withWhole(path, size, (bytes) =>
          this.#putObject(key, bytes, BLOB_TYPE, sha256In(digest)),
        );
      else await this.#uploader.upload(path, size, () => this.#beginUpload(key));
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
    let token: string | undefined;
    do {
      const page = await this.#attempt('list', this.#keys.blobs, () => this.#list(token));
      for (const { Key } of page.Contents ?? []) {
        const digest = this.#keys.digestOf(Key ?? '');
        if (digest !== undefined) yield digest;
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
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
      const stale = (await this.#listUploads()).filter(({ Initiated }) => Initiated && Initiated < before);
      for (const { Key, UploadId } of stale) await this.#abortUpload(Key, UploadId);
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
    const found = await this.#get(key, {});
    if (found === undefined) {
      await this.#putObject(key, Buffer.from(LAYOUT_MARKER), 'application/json');
    } else if (!isOurLayout(await textOf(found))) {
      const name = `s3://${this.#location.bucket}/${key}`;
      throw new S3Failure(
        'refused',
        `${name} is of another kind or a later version; give weir a prefix of its own, as in s3://${this.#location.bucket}/PREFIX`,
      );
    }
    this.#layoutIsChecked = true;
  }

  async #get(
    key: string,
    wanted: { readonly Range?: string; readonly IfMatch?: string },
    signal = this.#options.signal,
  ): Promise<GetObjectCommandOutput | undefined> {
    try {
      const command = new GetObjectCommand({ Bucket: this.#location.bucket, Key: key, ...wanted });
      return await soon(signal, (abortSignal) => this.#reads.send(command, { abortSignal }));
    } catch (error) {
      if (isMissingKey(error)) return undefined;
      throw error;
    }
  }

  async #head(key: string): Promise<{ size: number } | undefined> {
    try {
      const command = new HeadObjectCommand({ Bucket: this.#location.bucket, Key: key });
      const { ContentLength } = await soon(this.#options.signal, (abortSignal) =>
        this.#reads.send(command, { abortSignal }),
      );
      if (ContentLength === undefined) throw new Error('the answer to HEAD has no length');
      return { size: ContentLength };
    } catch (error) {
      if (!hidesReason(error)) throw error;
      // The answer about the marker has a body, which tells what is wrong if it is more than this one object.
      const marker = await this.#get(this.#keys.marker, {});
      if (marker !== undefined) await textOf(marker);
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  /** For a write, which tells by itself what a HEAD leaves open. */
  async #isThere(key: string): Promise<boolean> {
    try {
      const command = new HeadObjectCommand({ Bucket: this.#location.bucket, Key: key });
      await this.#writes.send(command, { abortSignal: this.#options.signal });
      return true;
    } catch (error) {
      if (hidesReason(error)) return false;
      throw error;
    }
  }

  async #putObject(key: string, bytes: Uint8Array, type: string, sha256?: string): Promise<void> {
    const command = new PutObjectCommand({
      Bucket: this.#location.bucket,
      Key: key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: type,
    });
    if (sha256 !== undefined) command.middlewareStack.add(withContentHash(sha256), { step: 'build' });
    await this.#writes.send(command, {
      abortSignal: this.#options.signal,
      requestTimeout: WRITE_TIMEOUT_MS,
    });
  }

  async #beginUpload(key: string): Promise<PartUpload> {
    const Bucket = this.#location.bucket;
    const { signal } = this.#options;
    const begun = await this.#writes.send(
      new CreateMultipartUploadCommand({ Bucket, Key: key, ContentType: BLOB_TYPE }),
      { abortSignal: signal },
    );
    const upload = { Bucket, Key: key, UploadId: begun.UploadId };
    return {
      part: async (number, bytes, failed) => {
        const command = new UploadPartCommand({
          ...upload,
          PartNumber: number,
          Body: bytes,
          ContentLength: bytes.length,
        });
        command.middlewareStack.add(withContentHash(await sha256Of(bytes)), { step: 'build' });
        const sent = await this.#writes.send(command, {
          abortSignal: AbortSignal.any([signal, failed]),
          requestTimeout: WRITE_TIMEOUT_MS,
        });
        if (sent.ETag === undefined) throw new Error(`the server told no ETag of part ${number}`);
        return sent.ETag;
      },
      complete: async (etags) => {
        const Parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }));
        await this.#writes.send(
          new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }),
          { abortSignal: signal, requestTimeout: COMPLETE_TIMEOUT_MS },
        );
      },
      abort: () => this.#abortUpload(upload.Key, upload.UploadId),
    };
  }

  /** Also after the signal has aborted everything else. One that is gone already is as wanted. */
  async #abortUpload(key: string | undefined, id: string | undefined): Promise<void> {
    try {
      await this.#writes.send(
        new AbortMultipartUploadCommand({ Bucket: this.#location.bucket, Key: key, UploadId: id }),
        { abortSignal: AbortSignal.timeout(ABORT_TIMEOUT_MS) },
      );
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
    }
  }

  /**
   * Of the whole bucket from our first key on, less those of others: MinIO takes a prefix here for an object's
   * whole name, and so finds nothing below one.
   */
  async #listUploads(): Promise<readonly MultipartUpload[]> {
    const ours: MultipartUpload[] = [];
    let marker: { readonly KeyMarker: string; readonly UploadIdMarker?: string } | undefined = {
      KeyMarker: this.#keys.blobs,
    };
    while (marker !== undefined) {
      const command = new ListMultipartUploadsCommand({ Bucket: this.#location.bucket, ...marker });
      const page: ListMultipartUploadsCommandOutput = await this.#writes.send(command, {
        abortSignal: this.#options.signal,
      });
      ours.push(...(page.Uploads ?? []).filter(({ Key }) => Key?.startsWith(this.#keys.blobs)));
      const { IsTruncated, NextKeyMarker: last, NextUploadIdMarker: id } = page;
      const goesOn = IsTruncated === true && last?.startsWith(this.#keys.blobs) === true;
      marker = goesOn ? { KeyMarker: last, ...(id === undefined ? {} : { UploadIdMarker: id }) } : undefined;
    }
    return ours;
  }

  async #list(token: string | undefined): Promise<ListObjectsV2CommandOutput> {
    const command = new ListObjectsV2Command({
      Bucket: this.#location.bucket,
      Prefix: this.#keys.blobs,
      ...(token === undefined ? {} : { ContinuationToken: token }),
    });
    return await this.#reads.send(command, { abortSignal: this.#options.signal });
  }

  /** S3 answers the same whether or not the object was there. */
  async #remove(key: string): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#location.bucket, Key: key });
    await this.#attempt('remove', key, () =>
      this.#writes.send(command, { abortSignal: this.#options.signal }),
    );
  }

  async #readRecord<T>(key: string, parse: (text: string) => T | undefined): Promise<T | undefined> {
    return await this.#attempt('read', key, async () => {
      const found = await this.#get(key, {});
      return found && parse(await textOf(found));
    });
  }

  async #writeRecord(key: string, record: object): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(record));
    await this.#attempt('write', key, () => this.#putObject(key, bytes, 'application/json'));
  }

  #blobOf(key: string, found: GetObjectCommandOutput): StoredBlob {
    const { ContentLength: length, ContentRange: told, ETag: etag } = found;
    const stream = bodyOf(found);
    const part = told === undefined ? undefined : parseContentRange(told);
    if (part !== undefined) return this.#blob(key, part.size, etag, { stream, range: part.range });
    if (length === undefined || told !== undefined) {
      stream.destroy();
      throw new Error(`the server tells no size of the object`);
    }
    return this.#blob(key, length, etag, { stream, range: { start: 0, end: length - 1 } });
  }

  #blob(key: string, size: number, etag: string | undefined, opened?: S3Body): StoredBlob {
    const fetch = async (range: ByteRange, signal: AbortSignal): Promise<Readable> => {
      try {
        const found = await this.#get(
          key,
          {
            Range: rangeHeader({ first: range.start, last: range.end }),
            ...(etag === undefined ? {} : { IfMatch: etag }),
          },
          AbortSignal.any([signal, this.#options.signal]),
        );
        if (found === undefined) throw new Error('the object is gone');
        const part = parseContentRange(found.ContentRange ?? '');
        if (part?.range.start === range.start && part.range.end === range.end) return bodyOf(found);
        bodyOf(found).destroy();
        throw new Error(`bytes ${range.start}-${range.end} were asked for, ${found.ContentRange} came`);
      } catch (error) {
        throw failureOf('read', key, this.#location, error);
      }
    };
    return new S3Blob({ size, opened, fetch, name: `s3://${this.#location.bucket}/${key}` });
  }

  #destroy(): void {
    this.#reads.destroy();
    this.#writes.destroy();
  }
}

/** @throws DOMException named TimeoutError when the answer has not begun in time. */
async function soon<T>(signal: AbortSignal, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(new DOMException(`no answer within ${READ_TIMEOUT_MS} ms`, 'TimeoutError')),
    READ_TIMEOUT_MS,
  );
  try {
    return await send(AbortSignal.any([signal, late.signal]));
  } catch (error) {
    if (!signal.aborted) late.signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The digest is known, so a small blob need not be hashed again, and the server refuses what is not of it. */
function sha256In(digest: Digest): string | undefined {
  return algorithmOf(digest) === 'sha256' ? digest.slice('sha256:'.length) : undefined;
}

/** On a thread of libuv's: what a signature covers would be hashed on the event loop by the SDK, 8 MiB at once. */
async function sha256Of(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return Buffer.from(await crypto.subtle.digest('SHA-256', bytes)).toString('hex');
}

type Next<Args, Result> = (args: Args) => Promise<Result>;

/** Middleware of the SDK, which signs what this header says instead of hashing the body. */
function withContentHash(hex: string) {
  return <Args extends { request: unknown }, Result>(next: Next<Args, Result>): Next<Args, Result> =>
    async (args) => {
      const { request } = args;
      if (hasHeaders(request)) request.headers['x-amz-content-sha256'] = hex;
      return await next(args);
    };
}

function hasHeaders(request: unknown): request is { headers: Record<string, string> } {
  return (
    typeof request === 'object' &&
    request !== null &&
    'headers' in request &&
    typeof request.headers === 'object'
  );
}

function bodyOf({ Body }: GetObjectCommandOutput): Readable {
  if (!(Body instanceof Readable)) throw new Error('the answer has no body');
  return Body;
}

async function textOf(found: GetObjectCommandOutput): Promise<string> {
  const body = bodyOf(found);
  const stalled = new DOMException('the answer began and did not end', 'TimeoutError');
  const late = setTimeout(() => body.destroy(stalled), READ_TIMEOUT_MS);
  try {
    return (await readBytes(body, MAX_RECORD_BYTES)).toString();
  } finally {
    clearTimeout(late);
  }
}
