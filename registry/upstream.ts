import { Counter, type Registry } from 'prom-client';
import type { Dispatcher } from 'undici';
import type { Upstream } from '../config/config.ts';
import type { Endpoint } from '../config/endpoint.ts';
import { sourcesOf } from '../config/routing.ts';
import { BLOB_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { AddressGuard } from './address-guard.ts';
import { parseChallenges } from './challenge.ts';
import type { Egress, Way } from './egress.ts';
import type { UpstreamBody } from './fill.ts';
import { readBytes } from './small-body.ts';
import type { Target } from './target.ts';
import { BearerTokens, TokenRefused, type TokenRequest } from './upstream-auth.ts';
import { absent, limited, type UpstreamFailure, unavailable } from './upstream-failure.ts';

/** Larger manifests are refused, as distribution and Docker Hub do. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAX_TOKEN_ANSWER_BYTES = 64 * 1024;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export interface UpstreamOptions {
  readonly egress: Egress;
  readonly guard: AddressGuard;
  readonly metrics: Registry;
  /** `name/version`, sent as the user agent. */
  readonly product: string;
  /** A value for the Via header by which a request that comes round to us is known (RFC 9110, section 7.6.3). */
  readonly via: string;
}

/** What is wanted of an upstream: `manifests/1.27`, or `blobs/sha256:…`. */
interface Ask {
  readonly method: 'GET' | 'HEAD';
  readonly path: `manifests/${string}` | `blobs/${string}`;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface UpstreamManifest {
  readonly mediaType: string | undefined;
  /** As the upstream tells it; to be compared with the bytes. */
  readonly digest: string | undefined;
  readonly bytes: Buffer;
}

/**
 * The client for upstream registries. Every request is tried at each source (a mirror, then the registry
 * itself) over each way out, until one answers; the failure of the last is the one that counts, because it is
 * the registry's own.
 */
export class UpstreamClient {
  readonly #options: UpstreamOptions;
  readonly #tokens = new BearerTokens();
  readonly #requests: Counter<'upstream' | 'method' | 'status'>;
  readonly #bytes: Counter<'upstream'>;

  constructor(options: UpstreamOptions) {
    this.#options = options;
    const registers = [options.metrics];
    this.#requests = new Counter({
      name: 'weir_upstream_requests_total',
      help: 'Requests to upstream registries by the status of their answer, "error" when none came.',
      labelNames: ['upstream', 'method', 'status'],
      registers,
    });
    this.#bytes = new Counter({
      name: 'weir_upstream_blob_bytes_total',
      help: 'Bytes of blobs that were read from upstream registries.',
      labelNames: ['upstream'],
      registers,
    });
  }

  /** @throws UpstreamFailure */
  async manifest(
    target: Target,
    reference: string,
    accept: string,
    signal: AbortSignal,
  ): Promise<UpstreamManifest> {
    const headers = { accept };
    const answer = await this.#ask(target, {
      method: 'GET',
      path: `manifests/${reference}`,
      headers,
      signal,
    });
    return {
      mediaType: header(answer, 'content-type'),
      digest: header(answer, 'docker-content-digest'),
      bytes: await this.#guarded(target, () => readBytes(answer.body, MAX_MANIFEST_BYTES)),
    };
  }

  /** The digest of a tag as a HEAD tells it; `undefined` when the upstream leaves it out. @throws UpstreamFailure */
  async resolve(
    target: Target,
    tag: string,
    accept: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const headers = { accept };
    const answer = await this.#ask(target, { method: 'HEAD', path: `manifests/${tag}`, headers, signal });
    await answer.body.dump();
    return header(answer, 'docker-content-digest');
  }

  /** The size of a blob that is there; `undefined` in it when the upstream does not tell. @throws UpstreamFailure */
  async blobSize(target: Target, digest: Digest, signal: AbortSignal): Promise<{ size: number | undefined }> {
    const answer = await this.#ask(target, {
      method: 'HEAD',
      path: `blobs/${digest}`,
      headers: BLOB_HEADERS,
      signal,
    });
    await answer.body.dump();
    return { size: contentLength(answer) };
  }

  /** The blob from this offset on. @throws UpstreamFailure */
  async blob(target: Target, digest: Digest, offset: number, signal: AbortSignal): Promise<UpstreamBody> {
    const headers = offset === 0 ? BLOB_HEADERS : { ...BLOB_HEADERS, range: `bytes=${offset}-` };
    const answer = await this.#ask(target, { method: 'GET', path: `blobs/${digest}`, headers, signal });
    if (
      header(answer, 'content-encoding') !== undefined &&
      header(answer, 'content-encoding') !== 'identity'
    ) {
      await answer.body.dump();
      throw unavailable(target.upstream, 'the upstream encoded a blob although it was asked not to');
    }
    const { size, skip } = extent(answer, offset);
    return { size, chunks: this.#counted(target.upstream, answer.body, skip) };
  }

  async *#counted(
    upstream: Upstream,
    body: AsyncIterable<Uint8Array>,
    skip: number,
  ): AsyncIterable<Uint8Array> {
    let toSkip = skip;
    for await (const chunk of body) {
      this.#bytes.inc({ upstream: upstream.host }, chunk.length);
      const rest = toSkip === 0 ? chunk : chunk.subarray(toSkip);
      toSkip = Math.max(0, toSkip - chunk.length);
      if (rest.length > 0) yield rest;
    }
  }

  async #ask(target: Target, ask: Ask): Promise<Dispatcher.ResponseData> {
    const ways = await this.#guarded(target, () => this.#options.egress.ways(target.upstream, target.config));
    let failure: UpstreamFailure | undefined;
    for (const source of sourcesOf(target.upstream)) {
      for (const way of ways) {
        const answer = await this.#guarded(target, () => this.#attempt(target, source, way, ask)).catch(
          (error: UpstreamFailure) => error,
        );
        if (!(answer instanceof Error)) return answer;
        failure = answer;
        // Another way out leads to the same answer; only a source that could not be reached may be reached by it.
        if (answer.reached || ask.signal.aborted) break;
      }
    }
    throw failure ?? unavailable(target.upstream, 'it has no way out');
  }

  /** Asks one source over one way, getting a token when it wants one. */
  async #attempt(target: Target, source: Endpoint, way: Way, ask: Ask): Promise<Dispatcher.ResponseData> {
    const { upstream } = target;
    const repository = [source.repositoryPrefix, target.repository].filter((part) => part !== '').join('/');
    const url = new URL(`${source.origin}/v2/${repository}/${ask.path}`);
    const tokenRequest: TokenRequest = { upstream, origin: source.origin, repository };
    const known = this.#tokens.known(tokenRequest);
    let answer = await this.#follow(upstream, url, way, ask, known);
    if (answer.statusCode === 401) {
      this.#tokens.drop(tokenRequest);
      const challenges = parseChallenges([answer.headers['www-authenticate'] ?? []].flat().join(', '));
      await answer.body.dump();
      const token = await this.#tokens.obtain(tokenRequest, challenges, (realm) =>
        this.#fetchText(upstream, realm, way, ask.signal),
      );
      if (token === undefined) throw absent(upstream, 'it wants credentials');
      answer = await this.#follow(upstream, url, way, ask, token);
    }
    const { statusCode } = answer;
    if (statusCode === 200 || statusCode === 206) return answer;
    await answer.body.dump();
    if (statusCode === 401 || statusCode === 403 || statusCode === 404)
      throw absent(upstream, `it answered ${statusCode}`);
    if (statusCode === 429) throw limited(upstream);
    throw unavailable(upstream, `it answered ${statusCode}`, { reached: true });
  }

  /** One request with its redirects; what it may know of us goes to its own origin only. */
  async #follow(
    upstream: Upstream,
    start: URL,
    way: Way,
    ask: Ask,
    token: string | undefined,
  ): Promise<Dispatcher.ResponseData> {
    let url = start;
    for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
      const authorization =
        token !== undefined && url.origin === start.origin ? { authorization: `Bearer ${token}` } : {};
      const answer = await this.#send(upstream, url, way, {
        ...ask,
        headers: { ...ask.headers, ...authorization },
      });
      const location = header(answer, 'location');
      if (!REDIRECTS.has(answer.statusCode) || location === undefined) return answer;
      await answer.body.dump();
      if (!URL.canParse(location, url.href)) throw unavailable(upstream, 'it redirects to what is no URL');
      const next = new URL(location, url);
      if (
        next.protocol !== 'https:' &&
        url.protocol === 'https:' &&
        !upstream.trustedHosts.includes(next.host)
      )
        throw unavailable(
          upstream,
          `it redirects from https to ${next.protocol}//${next.host}; if that is meant, add ${next.host} to its "trustedHosts"`,
        );
      url = next;
    }
    throw unavailable(upstream, `it redirected more than ${MAX_REDIRECTS} times`);
  }

  async #send(upstream: Upstream, url: URL, way: Way, ask: Ask): Promise<Dispatcher.ResponseData> {
    this.#options.guard.check(url, upstream);
    const labels = { upstream: upstream.host, method: ask.method };
    try {
      const answer = await way.dispatcher.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: ask.method,
        headers: {
          'accept-encoding': 'identity',
          'user-agent': this.#options.product,
          via: this.#options.via,
          ...ask.headers,
        },
        signal: ask.signal,
      });
      this.#requests.inc({ ...labels, status: String(answer.statusCode) });
      return answer;
    } catch (error) {
      this.#requests.inc({ ...labels, status: 'error' });
      throw error;
    }
  }

  async #fetchText(
    upstream: Upstream,
    url: URL,
    way: Way,
    signal: AbortSignal,
  ): Promise<{ status: number; text: string }> {
    const headers = { accept: 'application/json' };
    const answer = await this.#send(upstream, url, way, {
      method: 'GET',
      path: 'manifests/',
      headers,
      signal,
    });
    const bytes = await readBytes(answer.body, MAX_TOKEN_ANSWER_BYTES);
    return { status: answer.statusCode, text: bytes.toString('utf8') };
  }

  /** Gives every failure on the way to an answer the form that the cache knows. */
  async #guarded<T>(target: Target, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Error && error.name === 'UpstreamFailure') throw error;
      if (error instanceof TokenRefused && error.status === 429) throw limited(target.upstream);
      if (error instanceof TokenRefused && error.status < 500) throw absent(target.upstream, error.message);
      throw unavailable(target.upstream, 'the request failed', { cause: error });
    }
  }
}

const BLOB_HEADERS: Readonly<Record<string, string>> = { accept: `${BLOB_TYPE}, */*` };

/** What of the blob an answer holds: its whole size, and how many bytes at its beginning are known already. */
function extent(answer: Dispatcher.ResponseData, offset: number): { size: number | undefined; skip: number } {
  if (answer.statusCode !== 206) return { size: contentLength(answer), skip: offset };
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(header(answer, 'content-range') ?? '');
  const start = Number(match?.[1]);
  if (match === null || start > offset) throw new Error('it answered with another range than was asked for');
  return { size: match[2] === '*' ? undefined : Number(match[2]), skip: offset - start };
}

function contentLength(answer: Dispatcher.ResponseData): number | undefined {
  const text = header(answer, 'content-length');
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

function header(answer: Dispatcher.ResponseData, name: string): string | undefined {
  const value = answer.headers[name];
  return typeof value === 'string' ? value : value?.[0];
}
