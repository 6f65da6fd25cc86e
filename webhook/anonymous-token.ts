import * as z from 'zod';
import { isForbiddenTarget } from '../config/forbidden-targets.ts';
import { parseJson } from '../oci/json.ts';

const tokenSchema = z.object({ token: z.string().optional(), access_token: z.string().optional() });
/** In a header, as a token service gives it. */
const TOKEN = /^[\x21-\x7e]{1,16384}$/;
const MAX_BODY = 65_536;

/**
 * The `Authorization` that a registry gives to everybody who asks for it, as it says in its 401 (the distribution
 * project's token specification); `undefined` when there is none to be had. Never rejects.
 *
 * @param challenge the value of `WWW-Authenticate`.
 */
export async function anonymousToken(
  challenge: string,
  origin: string,
  repository: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const url = tokenUrl(challenge, origin, repository);
  if (url === undefined) return undefined;
  try {
    const response = await fetch(url, { signal, redirect: 'error' });
    const text = response.ok ? await response.text() : '';
    const parsed = tokenSchema.safeParse(parseJson(text.slice(0, MAX_BODY))).data;
    const token = parsed?.token ?? parsed?.access_token ?? '';
    return TOKEN.test(token) ? `Bearer ${token}` : undefined;
  } catch {
    return undefined;
  }
}

/** Where the token is to be had: over TLS, or at the registry itself, and never inside of the cluster's own services. */
function tokenUrl(challenge: string, origin: string, repository: string): URL | undefined {
  if (!/^\s*bearer\s/i.test(challenge)) return undefined;
  const parameters = new Map(
    [...challenge.matchAll(/([a-z]+)="([^"]*)"/gi)].map(([, name = '', value = '']) => [
      name.toLowerCase(),
      value,
    ]),
  );
  const realm = parameters.get('realm') ?? '';
  if (!URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  if (url.origin !== origin && url.protocol !== 'https:') return undefined;
  if (isForbiddenTarget(url.hostname) || url.username !== '' || url.password !== '') return undefined;
  const service = parameters.get('service');
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.set('scope', `repository:${repository}:pull`);
  return url;
}
