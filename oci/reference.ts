import { type Digest, parseDigest } from './digest.ts';
import { DOCKER_HUB, parseHost } from './host.ts';
import { isRepository, isTag } from './repository.ts';

/** An image reference in full: where it lives and what is meant there. At least one of tag and digest is set. */
export interface Reference {
  readonly host: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/**
 * Reads an image reference as container runtimes do: the first component is a host only if it has a `.` or `:`,
 * is `localhost`, or has an upper-case letter; everything else is Docker Hub, where one-component names live
 * under `library/`. Without tag and digest the tag is `latest`.
 *
 * @throws Error that names the reference and what is wrong with it.
 */
export function parseReference(text: string): Reference {
  const [beforeDigest, digestText, ...more] = text.split('@');
  if (beforeDigest === undefined || more.length > 0) throw invalid(text, 'it has more than one @');
  const digest = digestText === undefined ? undefined : parseDigest(digestText);
  if (digestText !== undefined && digest === undefined) throw invalid(text, `${digestText} is no digest`);

  const { host, rest } = splitHost(beforeDigest);
  if (host === undefined) throw invalid(text, 'its first component is no registry host');
  const colon = rest.lastIndexOf(':');
  const path = colon === -1 ? rest : rest.slice(0, colon);
  const tag = colon === -1 ? undefined : rest.slice(colon + 1);
  if (tag !== undefined && !isTag(tag)) throw invalid(text, `${tag} is no tag`);
  const repository = host === DOCKER_HUB ? hubRepository(path) : path;
  if (!isRepository(repository)) throw invalid(text, `${path} is no repository name`);
  if (digest === undefined) return { host, repository, tag: tag ?? 'latest' };
  return tag === undefined ? { host, repository, digest } : { host, repository, tag, digest };
}

/** The reference in its long form, from which {@link parseReference} reads the same again. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.host}/${reference.repository}${tag}${digest}`;
}

/** Docker Hub keeps its official images under `library/`: the only registry where a name is completed. */
export function hubRepository(name: string): string {
  return name.includes('/') ? name : `library/${name}`;
}

/** Whether the first component of a name is read as this host: any other is a name on Docker Hub, as a bare `mirror` is. */
export function isNamedHost(host: string): boolean {
  return /[.:]/.test(host) || host === 'localhost';
}

/** Whether a name that begins with this host is one on Docker Hub. */
export function isOnDockerHub(host: string): boolean {
  return !isNamedHost(host) || parseHost(host) === DOCKER_HUB;
}

function splitHost(text: string): { host: string | undefined; rest: string } {
  const slash = text.indexOf('/');
  const first = slash === -1 ? '' : text.slice(0, slash);
  if (!/[.:A-Z]/.test(first) && first !== 'localhost') return { host: DOCKER_HUB, rest: text };
  const host = parseHost(first);
  // Hosts are written in lower case here, where a bare `Registry` would turn into a name on Docker Hub.
  return { host: host !== undefined && isNamedHost(host) ? host : undefined, rest: text.slice(slash + 1) };
}

function invalid(text: string, why: string): Error {
  return new Error(`"${text}" is no image reference: ${why}`);
}
