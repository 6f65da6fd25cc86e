import { LRUCache } from 'lru-cache';
import { getDomain } from 'tldts';
import * as z from 'zod';
import type { Upstream } from '../config/config.ts';
import { parseJson } from '../oci/json.ts';
import { isTrusted } from './address-guard.ts';
import type { Challenge } from './challenge.ts';
import type { Credentials } from './credentials.ts';
import { type UpstreamFailure, unfit } from './upstream-failure.ts';

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

/** Sends a GET, with this Authorization if any, and gives the answer's status and its body, which is small. */
export type FetchText = (
  url: URL,
  authorization: string | undefined,
) => Promise<{ readonly status: number; readonly text: string }>;

export interface AuthorizationRequest {
  readonly upstream: Upstream;
  /** Origin that asks for it, and the only one to get it. */
  readonly origin: string;
  /** As the upstream itself names it. */
  readonly repository: string;
  /** `undefined`: anonymous. */
  readonly credentials: Credentials | undefined;
}

/**
 * What to send as `Authorization` for pulls: Bearer tokens, kept by origin, repository and credentials until
 * shortly before they expire, or the credentials themselves where the registry wants a password.
 */
export class Authorizations {
  readonly #known = new LRUCache<string, string>({ max: MAX_TOKENS });
  /** The credentials that each upstream was last asked with. */
  readonly #fingerprints = new Map<string, string | undefined>();

  /** What was last accepted for this repository; nothing that other credentials had got. */
  known(request: AuthorizationRequest): string | undefined {
    this.#forgetOthers(request);
    return this.#known.get(keyOf(request));
  }

  /** Forgets it, after the upstream has refused it. */
  drop(request: AuthorizationRequest): void {
    this.#known.delete(keyOf(request));
  }

  /**
   * Gets what a 401 asks for; `undefined` when that is something that we do not have, such as a password.
   *
   * @throws UpstreamFailure when the realm is unfit, must not see the credentials, or gives no token.
   * @throws TokenRefused when it answers with another status than 200.
   */
  async obtain(
    request: AuthorizationRequest,
    challenges: readonly Challenge[],
    fetch: FetchText,
  ): Promise<string | undefined> {
    const { credentials, upstream, repository } = request;
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')?.parameters;
    const realm = bearer?.get('realm');
    if (bearer === undefined || realm === undefined) {
      if (credentials === undefined || !challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
      this.#known.set(keyOf(request), credentials.basic);
      return credentials.basic;
    }
    const url = realmUrl(realm, request);
    const service = bearer.get('service');
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', pullScope(bearer.get('scope'), repository));

    const { status, text } = await fetch(url, credentials?.basic);
    if (status !== 200) throw new TokenRefused(status, url.host, credentials);
    const parsed = tokenSchema.safeParse(parseJson(text));
    const token = parsed.data?.token ?? parsed.data?.access_token;
    if (token === undefined || token === '' || /[^\x21-\x7e]/.test(token))
      throw unfit(upstream, `its token service ${url.host} gave no token`);
    const authorization = `Bearer ${token}`;
    const lifetime = Math.min(parsed.data?.expires_in ?? DEFAULT_LIFETIME_S, MAX_LIFETIME_S);
    if (lifetime > 0) this.#known.set(keyOf(request), authorization, { ttl: lifetime * (1 - MARGIN) * 1000 });
    return authorization;
  }

  /** A mirror is asked anonymously, which says nothing about the credentials for the registry itself. */
  #forgetOthers({ upstream, credentials }: AuthorizationRequest): void {
    if (credentials === undefined && upstream.credentials !== undefined) return;
    const before = this.#fingerprints.get(upstream.host);
    if (before === credentials?.fingerprint) return;
    this.#fingerprints.set(upstream.host, credentials?.fingerprint);
    if (before === undefined) return;
    for (const key of this.#known.keys())
      if (key.startsWith(`${upstream.host} ${before} `)) this.#known.delete(key);
  }
}

/** A token service's answer that is no token, such as 401 to wrong credentials. */
export class TokenRefused extends Error {
  override readonly name = 'TokenRefused';
  readonly status: number;

  constructor(status: number, host: string, credentials: Credentials | undefined) {
    const asked = credentials === undefined ? '' : ` to the credentials "${credentials.name}"`;
    super(`its token service ${host} answered ${status}${asked}`);
    this.status = status;
  }
}

function realmUrl(realm: string, { origin, upstream, credentials }: AuthorizationRequest): URL {
  if (!URL.canParse(realm))
    throw unfit(upstream, `it names "${realm}" as its token service, which is no URL`);
  const url = new URL(realm);
  const trusted = isTrusted(url, upstream);
  const refuse = (why: string): UpstreamFailure =>
    unfit(
      upstream,
      `it names ${url.protocol}//${url.host} as its token service, ${why}; if that is meant, add ${url.host} to its "trustedHosts"`,
    );
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw unfit(upstream, `it names ${url.protocol}//${url.host} as its token service, which is not https`);
  if (url.protocol === 'http:' && origin.startsWith('https:') && !trusted) throw refuse('which is not https');
  if (credentials !== undefined && !trusted && !isSameParty(url.hostname, new URL(origin).hostname))
    throw refuse(
      `which belongs to somebody else, so that the credentials "${credentials.name}" are not sent there`,
    );
  return url;
}

/** Whether both hosts are under one name that somebody registered, such as auth.docker.io and registry-1.docker.io. */
function isSameParty(host: string, other: string): boolean {
  // Whoever has a name below a private suffix (`*.azurecr.io`) is a party of their own.
  const domain = getDomain(host, { allowPrivateDomains: true });
  return host === other || (domain !== null && domain === getDomain(other, { allowPrivateDomains: true }));
}

/** The scope that was asked for, less everything but `pull`; our own when it is about something else. */
function pullScope(scope: string | undefined, repository: string): string {
  const match = /^repository:([a-z0-9._/-]+):/.exec(scope ?? '');
  return `repository:${match?.[1] ?? repository}:pull`;
}

function keyOf({ upstream, credentials, origin, repository }: AuthorizationRequest): string {
  return `${upstream.host} ${credentials?.fingerprint ?? 'anonymous'} ${origin} ${repository}`;
}
