import { isIPv6 } from 'node:net';
import { ownPlatform, PLATFORM_HEADER } from '../oci/platform.ts';
import type { Address } from '../process/server.ts';

/** A pull as it is handed on. */
export interface DoorRequest {
  readonly method: 'GET' | 'HEAD';
  /** The request target exactly as the client wrote it. */
  readonly target: string;
  /** Names and values by turns, without those that concern only one connection. */
  readonly headers: readonly string[];
  /** What is asked for belongs to this repository; empty when it belongs to none. */
  readonly repository: string;
}

/** Why the door answers by itself. */
export interface Refusal {
  readonly status: 400 | 404 | 405;
  readonly reason: string;
}

const MAX_TARGET_LENGTH = 4096;

/**
 * Reads what a client asks. Only pulls in origin form pass: whatever the registry could take for another path
 * than the door does (a dot segment, an encoded slash, an absolute URL) is refused here.
 */
export function readRequest(
  method: string,
  target: string,
  rawHeaders: readonly string[],
): DoorRequest | Refusal {
  if (method !== 'GET' && method !== 'HEAD')
    return { status: 405, reason: 'the door is for pulls: it takes GET and HEAD' };
  if (!target.startsWith('/'))
    return { status: 400, reason: 'the door takes request targets that begin with "/"' };
  const [path = '', ...query] = target.split('?');
  if (path !== '/v2' && !path.startsWith('/v2/'))
    return { status: 404, reason: 'there is nothing here but /v2/' };
  if (target.length > MAX_TARGET_LENGTH || query.length > 1 || !isPlain(path) || !/^[!-~]*$/.test(target))
    return { status: 400, reason: 'this request target can be read in more than one way' };
  if (hasBody(rawHeaders)) return { status: 400, reason: 'a pull has no body' };
  const [, repository = ''] = /^\/v2\/(.+)\/(?:manifests|blobs|referrers|tags)\/[^/]+$/.exec(path) ?? [];
  return { method, target, headers: endToEnd(rawHeaders, NOT_HANDED_ON), repository };
}

/** The head of the request as a replica is sent it. */
export function requestHead({ method, target, headers }: DoorRequest, replica: Address): string {
  const lines = [`${method} ${target} HTTP/1.1`, `Host: ${authorityOf(replica)}`];
  for (let at = 0; at + 1 < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`);
  return `${lines.join('\r\n')}\r\n${OWN}\r\n\r\n`;
}

export function authorityOf({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Header lines without those that concern only one connection, which are these and the ones that `Connection`
 * names (RFC 9110, section 7.6.1), and without the others that are to stay behind.
 *
 * @param raw names and values by turns.
 */
export function endToEnd(raw: readonly string[], others: readonly string[] = []): string[] {
  const dropped = new Set([...HOP_BY_HOP, ...others]);
  for (const value of valuesOf(raw, 'connection'))
    for (const name of value.split(',')) dropped.add(name.trim().toLowerCase());
  return raw.filter((_, at) => !dropped.has((raw[at - (at % 2)] ?? '').toLowerCase()));
}

/** The values of every line with this name, in lower case. */
export function valuesOf(raw: readonly string[], name: string): string[] {
  return raw.filter((_, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === name);
}

const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];

/** `Host` is the replica's, a pull has no body that the others could be about, and what the node is, the door says itself. */
const NOT_HANDED_ON = ['host', 'expect', 'content-length', PLATFORM_HEADER];
const OWN = `Via: 1.1 weir-door\r\n${PLATFORM_HEADER}: ${ownPlatform()}`;

/** A path whose segments mean what they look like: none empty or of dots alone, no slash or dot in disguise. */
function isPlain(path: string): boolean {
  if (/[\\#]|%(?![2-7][0-9a-f])|%(?:2[ef5]|5c|7f)/i.test(path)) return false;
  const segments = path.split('/').slice(1);
  return segments.every(
    (segment, at) => !/^\.*$/.test(segment) || (segment === '' && at === 1 && at === segments.length - 1),
  );
}

function hasBody(raw: readonly string[]): boolean {
  return (
    valuesOf(raw, 'transfer-encoding').length > 0 ||
    valuesOf(raw, 'content-length').some((value) => value !== '0')
  );
}
