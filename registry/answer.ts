import type { IncomingMessage, ServerResponse } from 'node:http';
import parseRange from 'range-parser';
import { BLOB_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { errorBody, RegistryError } from '../oci/errors.ts';
import type { BlobOrigin } from './blob-cache.ts';
import type { ManifestAnswer } from './manifest-cache.ts';
import type { AskedRange, ByteRange, StoredBlob, Write } from './store.ts';

/** A client that takes no byte of what is there for it for so long is gone. */
const CLIENT_IDLE_MS = 120_000;

const BLOB_HEADERS = { 'content-type': BLOB_TYPE, 'accept-ranges': 'bytes' } as const;

/**
 * Answers a manifest. containerd wants both `Docker-Content-Digest` and `Content-Length` of a HEAD; without
 * them it sends a GET to the same host, and an error there ends the pull without a look at the next one.
 */
export function answerManifest(
  request: IncomingMessage,
  response: ServerResponse,
  answer: ManifestAnswer,
): void {
  const { manifest, origin, overdue } = answer;
  const identity = identityOf(manifest.digest, origin, overdue);
  if (answerUnchanged(response, identity)) return;
  response.writeHead(200, {
    ...identity,
    'content-type': manifest.mediaType,
    'content-length': manifest.bytes.length,
  });
  response.end(request.method === 'HEAD' ? undefined : manifest.bytes);
}

/** Answers the HEAD of a blob, with its length where that is known. */
export function answerBlobHead(
  response: ServerResponse,
  digest: Digest,
  size: number | undefined,
  origin: BlobOrigin,
): void {
  const identity = identityOf(digest, origin);
  if (answerUnchanged(response, identity)) return;
  response.writeHead(200, {
    ...identity,
    ...BLOB_HEADERS,
    ...(size === undefined ? {} : { 'content-length': size }),
  });
  response.end();
}

/**
 * Answers the GET of a blob, in whole or the one range that was asked for. A range that cannot be read, or more
 * than one, is answered with the whole (RFC 9110, section 14.2); one outside of the blob with 416.
 *
 * @throws Error when the blob breaks off; the connection is then to be cut, so that no client takes it for whole.
 */
export async function answerBlob(
  request: IncomingMessage,
  response: ServerResponse,
  digest: Digest,
  blob: StoredBlob,
  origin: BlobOrigin,
  clientIdle = CLIENT_IDLE_MS,
): Promise<void> {
  const identity = identityOf(digest, origin);
  // Ahead of any range (RFC 9110, section 13.2.2).
  if (answerUnchanged(response, identity)) return;
  const { size } = blob;
  const range = rangeOf(request, digest, size);
  const headers = { ...identity, ...BLOB_HEADERS };
  if (range === undefined) response.writeHead(200, { ...headers, 'content-length': size });
  else
    response.writeHead(206, {
      ...headers,
      'content-length': range.end - range.start + 1,
      'content-range': `bytes ${range.start}-${range.end}/${size}`,
    });
  if (size > 0) {
    const left = new AbortController();
    const leave = (): void => left.abort(new Error('the client left'));
    response.once('close', leave);
    if (response.destroyed) leave();
    // It also fires while the client waits for us; the next write arms it anew.
    response.setTimeout(clientIdle, () => {
      if (response.writableLength > 0) response.destroy();
    });
    response.flushHeaders();
    await blob.copyTo(writeTo(response, left), range ?? { start: 0, end: size - 1 }, left.signal);
  }
  response.end();
}

/** Answers an error as the specification has it, or cuts the connection when an answer has begun. */
export function answerError(response: ServerResponse, error: RegistryError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = errorBody(error.code, error.message);
  response.writeHead(error.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

/** What answers say of what they are about, also when the client has it already. */
function identityOf(digest: Digest, origin: ManifestAnswer['origin'] | BlobOrigin, overdue = 0) {
  return {
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'cache-status': cacheStatus(origin, overdue),
  };
}

/** Answers a client that names what it would get in If-None-Match, some without the quotes. @returns whether it does. */
function answerUnchanged(response: ServerResponse, identity: ReturnType<typeof identityOf>): boolean {
  // "A recipient MUST use the weak comparison function" (RFC 9110, section 13.1.2).
  const named = response.req.headers['if-none-match']
    ?.split(',')
    .map((tag) => tag.trim().replace(/^W\//, ''));
  const isUnchanged = ['*', identity.etag, identity['docker-content-digest']].some((tag) =>
    named?.includes(tag),
  );
  if (isUnchanged) response.writeHead(304, identity).end();
  return isUnchanged;
}

/** RFC 9211; `overdue` is in milliseconds. A hit whose time to live is over is one that the upstream could not confirm. */
export function cacheStatus(origin: ManifestAnswer['origin'] | BlobOrigin, overdue: number): string {
  const seconds = Math.ceil(overdue / 1000);
  const status: Readonly<Record<typeof origin, string>> = {
    hit: 'hit',
    miss: 'fwd=miss; stored',
    unstored: 'fwd=miss',
    revalidated: 'hit; detail=revalidated',
    revalidating: `hit; ttl=-${seconds}; detail=revalidating`,
    stale: `hit; ttl=-${seconds}; detail=stale`,
  };
  return `weir; ${status[origin]}`;
}

/**
 * The range that the client asks for, as far as it can be told without the blob's size: a store that is far away
 * can then be asked for just these bytes. {@link answerBlob} decides about it.
 */
export function askedRange(request: IncomingMessage, digest: Digest): AskedRange | undefined {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(rangeHeaderOf(request, digest) ?? '') ?? [];
  if (first === '') return last === '' ? undefined : { suffix: Number(last) };
  if (last === '') return { first: Number(first) };
  return Number(last) < Number(first) ? undefined : { first: Number(first), last: Number(last) };
}

/** A Range header that holds: its validator, if there is one, is ours (RFC 9110, section 13.1.5). */
function rangeHeaderOf({ headers }: IncomingMessage, digest: Digest): string | undefined {
  const validator = headers['if-range'];
  return validator === undefined || validator === `"${digest}"` ? headers.range : undefined;
}

/** @throws RegistryError 416 when no byte of the range is in the blob. */
function rangeOf(request: IncomingMessage, digest: Digest, size: number): ByteRange | undefined {
  const header = rangeHeaderOf(request, digest);
  if (header === undefined) return undefined;
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header) ?? [];
  if (first === undefined || last === undefined || first + last === '') return undefined;
  // "A recipient … of an invalid int-range MUST ignore it" (RFC 9110, section 14.1.1).
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined;
  const ranges = parseRange(size, header);
  if (ranges === -2) return undefined;
  const range = ranges === -1 ? undefined : ranges[0];
  if (range === undefined) throw new RangeOutside(size);
  return { start: range.start, end: range.end };
}

export class RangeOutside extends RegistryError {
  readonly size: number;

  constructor(size: number) {
    super(416, 'UNSUPPORTED', `the range lies outside of the blob's ${size} bytes`);
    this.size = size;
  }
}

/** Resolves each write when the socket has taken the bytes, so that their buffer can be used again. */
function writeTo(response: ServerResponse, left: AbortController): Write {
  const { signal } = left;
  return async (chunk) => {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onLeft = (): void => reject(signal.reason);
    signal.addEventListener('abort', onLeft, { once: true });
    response.write(chunk, (error) => {
      // A socket that takes no more is a client that left, whoever says so first.
      if (error) left.abort(error);
      else resolve();
    });
    await promise.finally(() => signal.removeEventListener('abort', onLeft));
  };
}
