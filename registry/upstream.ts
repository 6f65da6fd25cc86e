import { LRUCache } from 'lru-cache';
import { Counter } from 'prom-client';
import type { Upstream } from '../config/config.ts';
import type { Endpoint } from '../config/endpoint.ts';
import { sourcesOf } from '../config/routing.ts';
import { BLOB_TYPE } from '../oci/descriptor.ts';
import { algorithmOf, type Digest, digestOf, parseDigest } from '../oci/digest.ts';
import { manifestType } from '../oci/manifest.ts';
import { INDEX_TYPE, MAX_REFERRERS, parseReferrers, type Referrer } from '../oci/referrers.ts';
import { nextPage } from './referrers-page.ts';
import { readBytes } from './small-body.ts';
import type { Target } from './target.ts';
import { unavailable, unfit } from './upstream-failure.ts';
import {
  type Answer,
  discard,
  headerOf,
  repositoryAt,
  UpstreamHttp,
  type UpstreamOptions,
} from './upstream-http.ts';
import { type BlobRest, type BlobVersion, type UpstreamBody, WHOLE } from './upstream-reading.ts';

/** Larger manifests are refused, as distribution and Docker Hub do. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** A list of referrers, all its pages together; each of thousands of descriptors would still fit. */
export const MAX_REFERRERS_BYTES = 4 * 1024 * 1024;
const MAX_REFERRERS_PAGES = 64;
/** A mirror that sent wrong bytes for a blob is not asked for it again within this time. */
const DISTRUST_MS = 3_600_000;
const MAX_DISTRUSTED = 10_000;

/** A manifest whose bytes have the digest, and that is one. */
export interface Manifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** What the caches ask upstream registries for. What cannot be right counts as that source's failure. */
export class UpstreamClient {
  readonly #http: UpstreamHttp;
  readonly #bytes: Counter<'upstream'>;
  readonly #distrusted = new LRUCache<string, true>({ max: MAX_DISTRUSTED, ttl: DISTRUST_MS });

  constructor(options: UpstreamOptions) {
    this.#http = new UpstreamHttp(options);
    this.#bytes = new Counter({
      name: 'weir_upstream_blob_bytes_total',
      help: 'Bytes of blobs that were read from upstream registries.',
      labelNames: ['upstream'],
      registers: [options.metrics],
    });
  }

  /** The manifest of a tag or digest. @throws UpstreamFailure */
  async manifest(target: Target, reference: string, accept: string, signal: AbortSignal): Promise<Manifest> {
    const ask = { method: 'GET', path: `manifests/${reference}`, headers: { accept }, signal } as const;
    return this.#http.exchange(target, ask, async ({ response }) => {
      const bytes = await readBytes(response.body, MAX_MANIFEST_BYTES);
      const told = parseDigest(headerOf(response, 'docker-content-digest') ?? '');
      const wanted = parseDigest(reference) ?? told;
      const digest = digestOf(bytes, wanted === undefined ? 'sha256' : algorithmOf(wanted));
      if (wanted !== undefined && digest !== wanted)
        throw unfit(target.upstream, `it sent ${digest} for the manifest ${wanted}`);
      return { digest, bytes, mediaType: typeOf(target, bytes, headerOf(response, 'content-type')) };
    });
  }

  /** The digest of a tag as a HEAD tells it; `undefined` when the upstream leaves it out. @throws UpstreamFailure */
  async resolve(
    target: Target,
    tag: string,
    accept: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const ask = { method: 'HEAD', path: `manifests/${tag}`, headers: { accept }, signal } as const;
    return this.#http.exchange(target, ask, async ({ response }) => {
      await discard(response);
      return headerOf(response, 'docker-content-digest');
    });
  }

  /** The size of a blob that is there; `undefined` in it when the upstream does not tell. @throws UpstreamFailure */
  async blobSize(target: Target, digest: Digest, signal: AbortSignal): Promise<{ size: number | undefined }> {
    const ask = { method: 'HEAD', path: `blobs/${digest}`, headers: BLOB_HEADERS, signal } as const;
    const sources = this.#sourcesFor(target.upstream, digest);
    return this.#http.exchange(
      target,
      ask,
      async ({ response }) => {
        await discard(response);
        refusePage(target, headerOf(response, 'content-type'));
        return { size: lengthOf({ response }) };
      },
      sources,
    );
  }

  /** The blob from an offset on, or from one before it. @throws UpstreamFailure */
  async blob(target: Target, digest: Digest, rest: BlobRest, signal: AbortSignal): Promise<UpstreamBody> {
    const { offset, version } = rest;
    const headers = offset === 0 ? BLOB_HEADERS : { ...BLOB_HEADERS, range: `bytes=${offset}-` };
    const ask = { method: 'GET', path: `blobs/${digest}`, headers, version, signal } as const;
    const sources = this.#sourcesFor(target.upstream, digest);
    const body = await this.#http.exchange(
      target,
      ask,
      async (answer) => this.#bodyOf(target, digest, answer, rest),
      sources,
    );
    // Nothing says that the parts belong together but the bytes before the offset.
    return body ?? this.blob(target, digest, WHOLE, signal);
  }

  /** `undefined` when the answer is a part of another version, which If-Range asks not to get. */
  #bodyOf(
    target: Target,
    digest: Digest,
    answer: Answer,
    { offset, version }: BlobRest,
  ): UpstreamBody | undefined {
    const { response, source } = answer;
    const { body } = response;
    refusePage(target, headerOf(response, 'content-type'));
    if ((headerOf(response, 'content-encoding') ?? 'identity') !== 'identity')
      throw unfit(target.upstream, 'it encoded a blob although it was asked not to');
    const extent = extentOf(target, answer, offset);
    const told = versionOf(answer);
    const isOther = told !== undefined && told.origin === version?.origin && told.etag !== version.etag;
    if (isOther && extent.start > 0) {
      body.destroy();
      return undefined;
    }
    return {
      ...extent,
      version: told,
      chunks: this.#counted(target.upstream, body),
      cancel: () => body.destroy(),
      distrust: () => this.#distrusted.set(`${source.origin} ${digest}`, true),
    };
  }

  /** Everything that refers to the subject, from all pages of its list. @throws UpstreamFailure */
  async referrers(target: Target, subject: Digest, signal: AbortSignal): Promise<readonly Referrer[]> {
    const list: `referrers/${string}` = `referrers/${subject}`;
    const read = async (answer: Answer, left: number): Promise<Page> => {
      const bytes = await readBytes(answer.response.body, left);
      try {
        const url = new URL(`${answer.source.origin}/v2/${repositoryAt(answer.source, target)}/${list}`);
        const next = nextPage(headerOf(answer.response, 'link'), url, list);
        return { referrers: parseReferrers(bytes), bytes: bytes.length, next, source: answer.source };
      } catch (cause) {
        throw unfit(target.upstream, cause instanceof Error ? cause.message : 'it sent no list', cause);
      }
    };
    const ask = { method: 'GET', path: list, headers: { accept: INDEX_TYPE }, signal } as const;
    let page = await this.#http.exchange(target, ask, (answer) => read(answer, MAX_REFERRERS_BYTES));
    const found = [...page.referrers];
    let left = MAX_REFERRERS_BYTES - page.bytes;
    for (let pages = 1; page.next !== undefined; pages++) {
      if (pages === MAX_REFERRERS_PAGES)
        throw unfit(target.upstream, `its list of referrers has more than ${MAX_REFERRERS_PAGES} pages`);
      // The next page of one source means nothing to another.
      const sources: readonly Endpoint[] = [page.source];
      page = await this.#http.exchange(
        target,
        { ...ask, path: page.next },
        (answer) => read(answer, left),
        sources,
      );
      found.push(...page.referrers);
      if (found.length > MAX_REFERRERS)
        throw unfit(target.upstream, `its list of referrers has more than ${MAX_REFERRERS} entries`);
      left -= page.bytes;
    }
    return found;
  }

  /** The registry itself always stays, as the one that must know. */
  #sourcesFor(upstream: Upstream, digest: Digest): readonly Endpoint[] {
    return sourcesOf(upstream).filter(
      (source) => source === upstream.endpoint || !this.#distrusted.has(`${source.origin} ${digest}`),
    );
  }

  async *#counted(upstream: Upstream, body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    for await (const chunk of body) {
      this.#bytes.inc({ upstream: upstream.host }, chunk.length);
      yield chunk;
    }
  }
}

interface Page {
  readonly referrers: readonly Referrer[];
  readonly bytes: number;
  readonly next: `referrers/${string}` | undefined;
  readonly source: Endpoint;
}

const BLOB_HEADERS: Readonly<Record<string, string>> = { accept: `${BLOB_TYPE}, */*` };

function typeOf(target: Target, bytes: Buffer, contentType: string | undefined): string {
  try {
    return manifestType(bytes, contentType);
  } catch (cause) {
    throw unfit(target.upstream, 'it sent no manifest', cause);
  }
}

/** The log-in page of a network, or of a domain that was given up. */
function refusePage(target: Target, contentType: string | undefined): void {
  if (contentType?.toLowerCase().startsWith('text/html') === true)
    throw unfit(target.upstream, 'it sent a page for a blob');
}

/** What of the blob an answer holds: its whole size, and where it begins. */
function extentOf(
  target: Target,
  answer: Answer,
  offset: number,
): { size: number | undefined; start: number } {
  const { response } = answer;
  if (response.statusCode !== 206) return { size: lengthOf(answer), start: 0 };
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headerOf(response, 'content-range') ?? '');
  const start = Number(match?.[1]);
  if (match === null || start > offset)
    throw unavailable(target.upstream, 'it answered with another range than was asked for', {
      reached: true,
    });
  return { size: match[2] === '*' ? undefined : Number(match[2]), start };
}

/** Only a strong ETag says that two parts are of the same bytes (RFC 9110, section 15.3.7.3). */
function versionOf({ response, source }: Answer): BlobVersion | undefined {
  const etag = headerOf(response, 'etag');
  return etag?.startsWith('"') === true ? { origin: source.origin, etag } : undefined;
}

function lengthOf({ response }: Pick<Answer, 'response'>): number | undefined {
  const text = headerOf(response, 'content-length');
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
