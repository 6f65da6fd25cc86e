import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Upstream } from '../config/config.ts';
import { parseJson } from '../oci/json.ts';
import type { Challenge } from './challenge.ts';

const DEFAULT_LIFETIME_S = 60; // distribution's token specification: at least this when nothing is said
const MAX_LIFETIME_S = 3600;
/** A token is not used in its last seconds, so that it does not run out on its way. */
const MARGIN = 0.1;
const MAX_TOKENS = 2000;
const MAX_TOKEN_LENGTH = 16_384;

const tokenSchema = z.object({
  token: z.string().max(MAX_TOKEN_LENGTH).optional(),
  access_token: z.string().max(MAX_TOKEN_LENGTH).optional(),
  expires_in: z.number().optional(),
});

/** Sends a GET and gives the answer's status and its body, which is small. */
export type FetchText = (url: URL) => Promise<{ readonly status: number; readonly text: string }>;

export interface TokenRequest {
  readonly upstream: Upstream;
  /** Origin that asks for the token. */
  readonly origin: string;
  /** As the upstream itself names it. */
  readonly repository: string;
}

/** Anonymous Bearer tokens for pulls, kept by origin and repository until shortly before they expire. */
export class BearerTokens {
  readonly #tokens = new LRUCache<string, string>({ max: MAX_TOKENS });

  /** The token that was last given for this repository. */
  known(request: TokenRequest): string | undefined {
    return this.#tokens.get(keyOf(request));
  }

  /** Forgets the token, after the upstream has refused it. */
  drop(request: TokenRequest): void {
    this.#tokens.delete(keyOf(request));
  }

  /**
   * Gets the token that a 401 asks for; `undefined` when it asks for something else, such as a password.
   *
   * @throws Error when the realm is unfit or does not give one.
   */
  async obtain(
    request: TokenRequest,
    challenges: readonly Challenge[],
    fetch: FetchText,
  ): Promise<string | undefined> {
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')?.parameters;
    const realm = bearer?.get('realm');
    if (bearer === undefined || realm === undefined) return undefined;
    const url = realmUrl(realm, request);
    const service = bearer.get('service');
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', pullScope(bearer.get('scope'), request.repository));

    const { status, text } = await fetch(url);
    if (status !== 200) throw new TokenRefused(status, url.host);
    const parsed = tokenSchema.safeParse(parseJson(text));
    const token = parsed.data?.token ?? parsed.data?.access_token;
    if (token === undefined || token === '' || /[^\x21-\x7e]/.test(token))
      throw new Error(`the token service ${url.host} gave no token`);
    const lifetime = Math.min(parsed.data?.expires_in ?? DEFAULT_LIFETIME_S, MAX_LIFETIME_S);
    if (lifetime > 0) this.#tokens.set(keyOf(request), token, { ttl: lifetime * (1 - MARGIN) * 1000 });
    return token;
  }
}

export class TokenRefused extends Error {
  override readonly name = 'TokenRefused';
  readonly status: number;

  constructor(status: number, host: string) {
    super(`the token service ${host} answered ${status}`);
    this.status = status;
  }
}

function realmUrl(realm: string, { origin, upstream }: TokenRequest): URL {
  if (!URL.canParse(realm))
    throw new Error(`${upstream.host} names "${realm}" as its token service, which is no URL`);
  const url = new URL(realm);
  const downgrade =
    url.protocol === 'http:' && origin.startsWith('https:') && !upstream.trustedHosts.includes(url.host);
  if ((url.protocol !== 'https:' && url.protocol !== 'http:') || downgrade)
    throw new Error(
      `${upstream.host} names ${url.protocol}//${url.host} as its token service, which is not https`,
    );
  return url;
}

/** The scope that was asked for, less everything but `pull`; our own when it is about something else. */
function pullScope(scope: string | undefined, repository: string): string {
  const match = /^repository:([a-z0-9._/-]+):/.exec(scope ?? '');
  return `repository:${match?.[1] ?? repository}:pull`;
}

function keyOf({ origin, repository }: TokenRequest): string {
  return `${origin} ${repository}`;
}
