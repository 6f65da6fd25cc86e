import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { S3Body } from './s3-blob.ts';
import type { S3Connection } from './s3-connection.ts';
import { hidesReason, isMissingKey, statusOf } from './s3-failure.ts';
import { parseContentRange, rangeHeader } from './s3-range.ts';
import type { PartUpload } from './s3-upload.ts';
import { readBytes } from './small-body.ts';
import type { AskedRange } from './store.ts';

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
/** Says that the signature does not cover the body. */
const UNSIGNED = 'UNSIGNED-PAYLOAD';
const MAX_TEXT_BYTES = 64 * 1024;
const ABORT_TIMEOUT_MS = 5_000;

/** What is wanted of an object: the whole if nothing is said, and any version. */
interface Wanted {
  readonly range?: AskedRange | undefined;
  /** Of the only version that will do. */
  readonly etag?: string | undefined;
}

/** An object whose bytes have begun to come. */
export interface S3Object extends S3Body {
  /** Of the whole object, in bytes. */
  readonly size: number;
  readonly etag: string | undefined;
  readonly metadata: Metadata;
}

/** What the writer of an object said of it; whoever replaces an object replaces that as well. */
export type Metadata = Readonly<Record<string, string>>;

/** What is known of an object without its bytes. */
export interface S3Head {
  readonly size: number;
  readonly metadata: Metadata;
}

/** An upload in parts that was begun and neither completed nor aborted. */
export interface S3Upload {
  readonly key: string;
  readonly id: string;
  readonly begun: Date;
}

/** What a new object is to be. */
export interface S3Content {
  readonly bytes: Uint8Array;
  readonly type: string;
  readonly metadata?: Metadata | undefined;
  /** In hex, where it is known: the bytes are then not hashed again, and the server refuses others. */
  readonly sha256?: string | undefined;
}

/** One bucket, and what is asked of it: the only file that knows the SDK. Throws what the SDK throws. */
export class S3Bucket {
  readonly #name: string;
  readonly #reads: S3Client;
  readonly #writes: S3Client;
  readonly #signal: AbortSignal;

  /** The signal ends everything. */
  constructor(name: string, connection: S3Connection, signal: AbortSignal) {
    this.#name = name;
    this.#reads = new S3Client({ ...connection, maxAttempts: READ_ATTEMPTS });
    // Credentials are fetched once for both, and connections shared.
    const { credentials } = this.#reads.config;
    this.#writes = new S3Client({ ...connection, credentials, maxAttempts: WRITE_ATTEMPTS });
    this.#signal = signal;
    signal.addEventListener('abort', () => this.close(), { once: true });
  }

  close(): void {
    this.#reads.destroy();
    this.#writes.destroy();
  }

  /** An object, to be read or destroyed by the caller; `undefined` when there is none. The signal is the caller's. */
  async get(key: string, wanted: Wanted, signal?: AbortSignal): Promise<S3Object | undefined> {
    const found = await this.#get(key, wanted, signal);
    return found && objectOf(found);
  }

  /** The whole of an object that is small by nature; `undefined` when there is none. */
  async text(key: string): Promise<string | undefined> {
    const found = await this.#get(key, {});
    return found && (await textOf(bodyOf(found)));
  }

  /** Why it fails, also when there is no such object, is left open: see {@link hidesReason}. */
  async head(key: string): Promise<S3Head> {
    const command = new HeadObjectCommand({ Bucket: this.#name, Key: key });
    return headOf(await soon(this.#signal, (abortSignal) => this.#reads.send(command, { abortSignal })));
  }

  /** For a write, which tells by itself what a HEAD leaves open; `undefined` also when that fails to say why. */
  async headForWrite(key: string): Promise<S3Head | undefined> {
    try {
      const command = new HeadObjectCommand({ Bucket: this.#name, Key: key });
      return headOf(await this.#writes.send(command, { abortSignal: this.#signal }));
    } catch (error) {
      if (hidesReason(error)) return undefined;
      throw error;
    }
  }

  async put(key: string, { bytes, type, metadata, sha256 }: S3Content): Promise<void> {
    const command = new PutObjectCommand({
      Bucket: this.#name,
      Key: key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: type,
      Metadata: metadata,
    });
    if (sha256 !== undefined)
      command.middlewareStack.add(
        withContentHash(() => sha256),
        { step: 'build' },
      );
    await this.#writes.send(command, { abortSignal: this.#signal, requestTimeout: WRITE_TIMEOUT_MS });
  }

  /** S3 answers the same whether or not the object was there. */
  async remove(key: string): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#name, Key: key });
    await this.#writes.send(command, { abortSignal: this.#signal });
  }

  /** A page of the keys that begin so, and where the next one begins. */
  async list(
    prefix: string,
    from: string | undefined,
  ): Promise<{ keys: string[]; next: string | undefined }> {
    const command = new ListObjectsV2Command({ Bucket: this.#name, Prefix: prefix, ContinuationToken: from });
    const page = await this.#reads.send(command, { abortSignal: this.#signal });
    return {
      keys: (page.Contents ?? []).flatMap(({ Key }) => Key ?? []),
      next: page.IsTruncated === true ? page.NextContinuationToken : undefined,
    };
  }

  async beginUpload(key: string, type: string, metadata: Metadata): Promise<PartUpload> {
    const Bucket = this.#name;
    const begun = await this.#writes.send(
      new CreateMultipartUploadCommand({ Bucket, Key: key, ContentType: type, Metadata: metadata }),
      { abortSignal: this.#signal },
    );
    const upload = { Bucket, Key: key, UploadId: begun.UploadId };
    return {
      part: async ({ number, bytes, sha256 }, failed) => {
        const command = new UploadPartCommand({
          ...upload,
          PartNumber: number,
          Body: bytes,
          ContentLength: bytes.length,
        });
        // TLS guards the bytes as well, and a hash costs both sides most of a second of CPU for each GiB.
        const hash = (isSecure: boolean) => (isSecure ? UNSIGNED : sha256());
        command.middlewareStack.add(withContentHash(hash), { step: 'build' });
        const sent = await this.#writes.send(command, {
          abortSignal: AbortSignal.any([this.#signal, failed]),
          requestTimeout: WRITE_TIMEOUT_MS,
        });
        if (sent.ETag === undefined) throw new Error(`the server told no ETag of part ${number}`);
        return sent.ETag;
      },
      complete: async (etags) => {
        const Parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }));
        await this.#writes.send(
          new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }),
          { abortSignal: this.#signal, requestTimeout: COMPLETE_TIMEOUT_MS },
        );
      },
      abort: () => this.abortUpload(upload.Key, upload.UploadId),
    };
  }

  /** Also after the signal has aborted everything else. One that is gone already is as wanted. */
  async abortUpload(key: string, id: string | undefined): Promise<void> {
    try {
      await this.#writes.send(
        new AbortMultipartUploadCommand({ Bucket: this.#name, Key: key, UploadId: id }),
        { abortSignal: AbortSignal.timeout(ABORT_TIMEOUT_MS) },
      );
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
    }
  }

  /**
   * The uploads of keys that begin so. The whole bucket is asked from there on, less what does not: MinIO takes a
   * prefix here for an object's whole name, and so finds nothing below one.
   */
  async uploads(prefix: string): Promise<readonly S3Upload[]> {
    const uploads: S3Upload[] = [];
    let marker: { readonly KeyMarker: string; readonly UploadIdMarker?: string | undefined } | undefined = {
      KeyMarker: prefix,
    };
    while (marker !== undefined) {
      const command = new ListMultipartUploadsCommand({ Bucket: this.#name, ...marker });
      const page: ListMultipartUploadsCommandOutput = await this.#writes.send(command, {
        abortSignal: this.#signal,
      });
      for (const { Key: key, UploadId: id, Initiated: begun } of page.Uploads ?? [])
        if (key?.startsWith(prefix) && id !== undefined && begun !== undefined)
          uploads.push({ key, id, begun });
      const { IsTruncated, NextKeyMarker: last, NextUploadIdMarker: id } = page;
      const goesOn = IsTruncated === true && last?.startsWith(prefix) === true;
      marker = goesOn ? { KeyMarker: last, UploadIdMarker: id } : undefined;
    }
    return uploads;
  }

  async #get(
    key: string,
    { range, etag }: Wanted,
    signal?: AbortSignal,
  ): Promise<GetObjectCommandOutput | undefined> {
    try {
      const command = new GetObjectCommand({
        Bucket: this.#name,
        Key: key,
        Range: range && rangeHeader(range),
        IfMatch: etag,
      });
      const either = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
      return await soon(either, (abortSignal) => this.#reads.send(command, { abortSignal }));
    } catch (error) {
      if (isMissingKey(error)) return undefined;
      throw error;
    }
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

type Next<Args, Result> = (args: Args) => Promise<Result>;

/** Middleware of the SDK, which signs what this header says instead of hashing the body on the event loop. */
function withContentHash(hash: (isSecure: boolean) => string | Promise<string>) {
  return <Args extends { request: unknown }, Result>(next: Next<Args, Result>): Next<Args, Result> =>
    async (args) => {
      const { request } = args;
      if (isRequest(request))
        request.headers['x-amz-content-sha256'] = await hash(request.protocol === 'https:');
      return await next(args);
    };
}

function isRequest(request: unknown): request is { headers: Record<string, string>; protocol: unknown } {
  return (
    typeof request === 'object' &&
    request !== null &&
    'protocol' in request &&
    'headers' in request &&
    typeof request.headers === 'object'
  );
}

function objectOf(found: GetObjectCommandOutput): S3Object {
  const { ContentLength: length, ContentRange: told, ETag: etag, Metadata: metadata = {} } = found;
  const stream = bodyOf(found);
  const part = told === undefined ? undefined : parseContentRange(told);
  if (part !== undefined) return { ...part, stream, etag, metadata };
  if (length !== undefined && told === undefined)
    return { range: { start: 0, end: length - 1 }, size: length, stream, etag, metadata };
  stream.destroy();
  throw new Error('the server tells no size of the object');
}

function headOf({ ContentLength: size, Metadata: metadata = {} }: HeadObjectCommandOutput): S3Head {
  if (size === undefined) throw new Error('the answer to HEAD has no length');
  return { size, metadata };
}

function bodyOf({ Body }: GetObjectCommandOutput): Readable {
  if (!(Body instanceof Readable)) throw new Error('the answer has no body');
  return Body;
}

async function textOf(body: Readable): Promise<string> {
  const stalled = new DOMException('the answer began and did not end', 'TimeoutError');
  const late = setTimeout(() => body.destroy(stalled), READ_TIMEOUT_MS);
  try {
    return (await readBytes(body, MAX_TEXT_BYTES)).toString();
  } finally {
    clearTimeout(late);
  }
}
