// Who gets in where: anonymous tokens as on Docker Hub, and the password of a company's registry.

import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { REGISTRY_PASSWORD, REGISTRY_USER, type RegistryHost } from './layout.ts';

const TOKEN_SECONDS = 300;
const tokenSchema = z.object({ registry: z.string(), scopes: z.array(z.string()), expires: z.number() });

/** A token for the scopes that were asked for, or undefined when the caller must show a password first. */
export function issueToken(registry: RegistryHost, request: IncomingMessage, url: URL): string | undefined {
  const known = hasPassword(request);
  if (request.headers.authorization !== undefined && !known) return undefined;
  if (registry.access === 'token' && !known) return undefined;
  const token = {
    registry: registry.name,
    scopes: url.searchParams.getAll('scope').flatMap((scope) => scope.split(' ')),
    expires: Date.now() + TOKEN_SECONDS * 1000,
  };
  return Buffer.from(JSON.stringify(token)).toString('base64url');
}

export function tokenAnswer(token: string): unknown {
  return { token, access_token: token, expires_in: TOKEN_SECONDS, issued_at: new Date().toISOString() };
}

/** What `WWW-Authenticate` has to say, or undefined when the request may go on. */
export function challenge(
  registry: RegistryHost,
  request: IncomingMessage,
  repository: string,
): string | undefined {
  const { access, name, realm } = registry;
  if (access === 'open') return undefined;
  if (access === 'basic') return hasPassword(request) ? undefined : `Basic realm="${name}"`;
  if (tokenCovers(registry, request, repository)) return undefined;
  const scope = repository === '' ? '' : `,scope="${scopeOf(repository)}"`;
  return `Bearer realm="${realm}",service="${name}"${scope}`;
}

function tokenCovers(registry: RegistryHost, request: IncomingMessage, repository: string): boolean {
  const [, encoded] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  if (encoded === undefined) return false;
  try {
    const token = tokenSchema.parse(JSON.parse(Buffer.from(encoded, 'base64url').toString()));
    const allowed = repository === '' || token.scopes.includes(scopeOf(repository));
    return token.registry === registry.name && token.expires > Date.now() && allowed;
  } catch {
    return false;
  }
}

function scopeOf(repository: string): string {
  return `repository:${repository}:pull`;
}

function hasPassword(request: IncomingMessage): boolean {
  const expected = Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString('base64');
  return request.headers.authorization === `Basic ${expected}`;
}
