import { LRUCache } from 'lru-cache';
import { Counter, type Registry } from 'prom-client';
import type { Dispatcher } from 'undici';
import type { Upstream } from '../config/config.ts';
import type { Endpoint } from '../config/endpoint.ts';
import { sourcesOf } from '../config/routing.ts';
import { codeOf } from '../process/file-problem.ts';
import { describe } from '../process/lifecycle.ts';
import { type AddressGuard, ForbiddenTarget, isTrusted } from './address-guard.ts';
import { parseChallenges } from './challenge.ts';
import { readCredentials } from './credentials.ts';
import type { Egress, Way } from './egress.ts';
import { readBytes } from './small-body.ts';
import type { Target } from './target.ts';
import { type AuthorizationRequest, Authorizations, TokenRefused } from './upstream-auth.ts';
import { absent, limited, UpstreamFailure, unavailable, unfit } from './upstream-failure.ts';
import type { BlobVersion } from './upstream-reading.ts';

/** Until an answer has begun, over all sources, ways, tokens and redirects: containerd 2.3 gives a mirror 30 s. */
const ANSWER_BUDGET_MS = 20_000;
const MAX_ABSENT = 20_000;
/** Characters of a reason that a client is told. */
const MAX_REASON = 200;
const MAX_TOKEN_ANSWER_BYTES = 64 * 1024;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** A request on a connection that the other side has just closed: nothing came of it, so it is sent once more. */
const STALE_CONNECTION: ReadonlySet<string | undefined> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE']);

export interface UpstreamOptions {
  readonly egress: Egress;
  readonly guard: AddressGuard;
  /** The docker config.json that holds what `credentials` names. */
  readonly dockerConfig: string | undefined;
  /** Milliseconds for which it is remembered that an upstream does not have something. */
  readonly absentTtl: number;
  readonly metrics: Registry;
  /** `name/version`, sent as the user agent. */
  readonly product: string;
  /** A value for the Via header by which a request that comes round to us is known (RFC 9110, section 7.6.3). */
  readonly via: string;
}

/** What is wanted of an upstream: `manifests/1.27`, or `blobs/sha256:…`. */
export interface Ask {
  readonly method: 'GET' | 'HEAD';
  readonly path: `manifests/${string}` | `blobs/${string}` | `referrers/${string}`;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as If-Range to the origin that it is of; to another one it means nothing. */
  readonly version?: BlobVersion | undefined;
  readonly signal: AbortSignal;
}

/** An answer with status 200 or 206, and the place that gave it. */
export interface Answer {
  readonly response: Dispatcher.ResponseData;
  readonly source: Endpoint;
}

/** What one attempt to get an answer goes by. */
interface Attempt {
  readonly target: Target;
  readonly source: Endpoint;
  readonly way: Way;
  readonly ask: Ask;
}

/**
 * Requests to upstream registries: authorization, redirects, several sources and ways out, and an end to
 * waiting.
 */
export class UpstreamHttp {
  readonly #options: UpstreamOptions;
  readonly #authorizations = new Authorizations();
  readonly #absent = new LRUCache<string, UpstreamFailure>({ max: MAX_ABSENT });
  readonly #requests: Counter<'upstream' | 'method' | 'status'>;

  constructor(options: UpstreamOptions) {
    this.#options = options;
    this.#requests = new Counter({
      name: 'weir_upstream_requests_total',
      help: 'Requests to upstream registries by the status of their answer, "error" when none came.',
      labelNames: ['upstream', 'method', 'status'],
      registers: [options.metrics],
    });
  }

  /**
   * Tries each source (a mirror, then the registry itself) over each way out until one gives an answer that
   * `use` accepts. The failure of the last counts, because it is the registry's own.
   *
   * @throws UpstreamFailure
   */
  async exchange<T>(
    target: Target,
    ask: Ask,
    use: (answer: Answer) => Promise<T>,
    sources: readonly Endpoint[] = sourcesOf(target.upstream),
  ): Promise<T> {
    // What a HEAD is refused, a GET may be given.
    const name = `${ask.method} ${target.upstream.host}/${target.repository}/${ask.path}`;
    const known = this.#absent.get(name);
    if (known !== undefined) throw known;
    try {
      return await this.#tryAll(target, ask, use, sources);
    } catch (error) {
      const { absentTtl: ttl } = this.#options;
      if (ttl > 0 && error instanceof UpstreamFailure && error.kind === 'absent')
        this.#absent.set(name, error, { ttl });
      throw error;
    }
  }

  async #tryAll<T>(
    target: Target,
    ask: Ask,
    use: (answer: Answer) => Promise<T>,
    sources: readonly Endpoint[],
  ): Promise<T> {
    const ways = await guarded(target, () => this.#options.egress.ways(target.upstream, target.config));
    const deadline = performance.now() + ANSWER_BUDGET_MS;
    let attempts = sources.length * ways.length;
    let failure: UpstreamFailure | undefined;
    for (const source of sources) {
      for (const [index, way] of ways.entries()) {
        const patience = (deadline - performance.now()) / attempts;
        attempts -= 1;
        try {
          return await guarded(target, () => this.#attempt({ target, source, way, ask }, patience, use));
        } catch (error) {
          if (!(error instanceof UpstreamFailure)) throw error;
          failure = error;
        }
        // Another way out leads to the same answer; only a source that could not be reached may be reached by it.
        if (failure.reached || ask.signal.aborted) {
          attempts -= ways.length - index - 1;
          break;
        }
      }
      if (ask.signal.aborted) break;
    }
    throw failure ?? unavailable(target.upstream, 'it has no way out');
  }

  /** `patience`: milliseconds until `use` has what it needs; a body that it hands on may take longer. */
  async #attempt<T>(attempt: Attempt, patience: number, use: (answer: Answer) => Promise<T>): Promise<T> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error('it did not answer in time')), Math.max(0, patience));
    const ask = { ...attempt.ask, signal: AbortSignal.any([attempt.ask.signal, late.signal]) };
    try {
      const response = await this.#authorized({ ...attempt, ask });
      try {
        return await use({ response, source: attempt.source });
      } catch (error) {
        response.body.destroy();
        throw error;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Asks one source over one way, getting the authorization that it wants. */
  async #authorized(attempt: Attempt): Promise<Dispatcher.ResponseData> {
    const { target, source, ask } = attempt;
    const { upstream } = target;
    const repository = repositoryAt(source, target);
    const url = new URL(`${source.origin}/v2/${repository}/${ask.path}`);
    // A mirror is another party, which never sees the credentials for the registry itself.
    const credentials =
      source === upstream.endpoint ? await readCredentials(this.#options.dockerConfig, upstream) : undefined;
    const request: AuthorizationRequest = { upstream, origin: source.origin, repository, credentials };
    const known = this.#authorizations.known(request);
    let answer = await this.#follow(attempt, url, known);
    if (answer.statusCode === 401) {
      this.#authorizations.drop(request);
      const challenges = parseChallenges([answer.headers['www-authenticate'] ?? []].flat().join(', '));
      await discard(answer);
      const authorization = await this.#authorizations.obtain(request, challenges, (realm, basic) =>
        this.#fetchText(attempt, realm, basic),
      );
      if (authorization === undefined) throw absent(upstream, 'it wants credentials');
      answer = await this.#follow(attempt, url, authorization);
    }
    const { statusCode } = answer;
    if (statusCode === 200 || statusCode === 206) return answer;
    await discard(answer);
    const shown = credentials === undefined ? '' : ` to the credentials "${credentials.name}"`;
    if (statusCode === 401 || statusCode === 403 || statusCode === 404)
      throw absent(upstream, `it answered ${statusCode}${shown}`, statusCode);
    if (statusCode === 429) throw limited(upstream);
    throw unavailable(upstream, `it answered ${statusCode}`, { reached: true, status: statusCode });
  }

  /** One request with its redirects; what it may know of us goes to its own origin only. */
  async #follow(
    attempt: Attempt,
    start: URL,
    authorization: string | undefined,
  ): Promise<Dispatcher.ResponseData> {
    const { upstream } = attempt.target;
    const { headers, version } = attempt.ask;
    const condition = version?.origin === attempt.source.origin ? { 'if-range': version.etag } : {};
    let url = start;
    for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
      const own = authorization !== undefined && url.origin === start.origin ? { authorization } : {};
      const answer = await this.#send(attempt, url, { ...headers, ...condition, ...own });
      const location = headerOf(answer, 'location');
      if (!REDIRECTS.has(answer.statusCode) || location === undefined) return answer;
      await discard(answer);
      url = redirectTarget(upstream, url, location);
    }
    throw unfit(upstream, `it redirected more than ${MAX_REDIRECTS} times`);
  }

  async #fetchText(
    attempt: Attempt,
    realm: URL,
    authorization: string | undefined,
  ): Promise<{ status: number; text: string }> {
    const headers = { accept: 'application/json', ...(authorization === undefined ? {} : { authorization }) };
    const answer = await this.#send({ ...attempt, ask: { ...attempt.ask, method: 'GET' } }, realm, headers);
    const bytes = await readBytes(answer.body, MAX_TOKEN_ANSWER_BYTES);
    return { status: answer.statusCode, text: bytes.toString('utf8') };
  }

  async #send(attempt: Attempt, url: URL, headers: Ask['headers']): Promise<Dispatcher.ResponseData> {
    const { target, way, ask } = attempt;
    this.#options.guard.check(url, target.upstream);
    if (way.hop.kind === 'proxy') await this.#options.guard.checkResolved(url, target.upstream);
    const labels = { upstream: target.upstream.host, method: ask.method };
    const request = (): Promise<Dispatcher.ResponseData> =>
      way.dispatcher.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: ask.method,
        headers: {
          'accept-encoding': 'identity',
          'user-agent': this.#options.product,
          via: [target.via, this.#options.via].filter((via) => via !== undefined).join(', '),
          ...headers,
        },
        signal: ask.signal,
      });
    try {
      const answer = await request().catch((error: unknown) => {
        if (!STALE_CONNECTION.has(codeOf(error)) || codeOf(error) === undefined) throw error;
        return request();
      });
      // Whoever reads the body is told by reading; one that is left unread must not end the process.
      answer.body.on('error', () => undefined);
      this.#requests.inc({ ...labels, status: String(answer.statusCode) });
      return answer;
    } catch (error) {
      this.#requests.inc({ ...labels, status: 'error' });
      throw error;
    }
  }
}

/** The repository as this source calls it. */
export function repositoryAt(source: Endpoint, { repository }: Target): string {
  return [source.repositoryPrefix, repository].filter((part) => part !== '').join('/');
}

export function headerOf(answer: Dispatcher.ResponseData, name: string): string | undefined {
  const value = answer.headers[name];
  return typeof value === 'string' ? value : value?.[0];
}

/** Reads a short body to its end, so that its connection can be used again; closes it for a longer one. */
export async function discard(answer: Dispatcher.ResponseData): Promise<void> {
  await answer.body.dump({ limit: 64 * 1024 });
}

/** Gives every failure on the way to an answer the form that the caches know. */
async function guarded<T>({ upstream }: Target, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UpstreamFailure) throw error;
    if (error instanceof TokenRefused && error.status === 429) throw limited(upstream);
    if (error instanceof TokenRefused && error.status < 500) throw absent(upstream, error.message);
    if (error instanceof TokenRefused) throw unfit(upstream, error.message);
    // Not by another way either: behind a proxy, a name that leads to an internal address shows it no more.
    if (error instanceof ForbiddenTarget) throw unfit(upstream, error.message, error);
    throw unavailable(upstream, `the request failed: ${describe(error).slice(0, MAX_REASON)}`, {
      cause: error,
    });
  }
}

/** Where a redirect leads. @throws UpstreamFailure when that is no place to go. */
function redirectTarget(upstream: Upstream, from: URL, location: string): URL {
  if (!URL.canParse(location, from.href)) throw unfit(upstream, 'it redirects to what is no URL');
  const to = new URL(location, from);
  if (to.protocol !== 'https:' && to.protocol !== 'http:')
    throw unfit(upstream, `it redirects to ${to.protocol}, which is neither http nor https`);
  if (to.protocol === 'http:' && from.protocol === 'https:' && !isTrusted(to, upstream))
    throw unfit(
      upstream,
      `it redirects from https to http://${to.host}; if that is meant, add ${to.host} to its "trustedHosts"`,
    );
  return to;
}
