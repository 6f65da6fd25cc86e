import type { Config, Upstream } from '../config/config.ts';
import { hostForPrefix } from '../config/routing.ts';
import { type Digest, parseDigest } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import { DOCKER_HUB, parseHost } from '../oci/host.ts';
import { hubRepository } from '../oci/reference.ts';
import { isRepository, isTag } from '../oci/repository.ts';

/** What a client asks for, after the question from which upstream is settled. */
export type PullRequest = ManifestRequest | BlobRequest | ReferrersRequest;

export interface ManifestRequest {
  readonly kind: 'manifest';
  readonly upstream: Upstream;
  readonly repository: string;
  readonly reference: { readonly tag: string } | { readonly digest: Digest };
}

export interface BlobRequest {
  readonly kind: 'blob';
  readonly upstream: Upstream;
  readonly repository: string;
  readonly digest: Digest;
}

/** "Listing Referrers": everything whose `subject` is the manifest of this digest. */
export interface ReferrersRequest {
  readonly kind: 'referrers';
  readonly upstream: Upstream;
  readonly repository: string;
  readonly digest: Digest;
  /** Only referrers of this type are wanted. */
  readonly artifactType: string | undefined;
}

const MAX_TARGET_LENGTH = 2048;

/**
 * Reads a request target below `/v2/`. Which upstream it means: `?ns=` as containerd sends it, and the path is
 * then literal; else a first path component that is a prefix; else Docker Hub, as Docker's `registry-mirrors`
 * ask. Without `prefixes` every path is literal: a listener that only serves Docker, since names on Docker Hub
 * may begin like a prefix.
 *
 * @throws RegistryError with the answer for the client.
 */
export function parsePull(target: string, config: Config, prefixes: boolean): PullRequest {
  if (target.length > MAX_TARGET_LENGTH)
    throw new RegistryError(414, 'NAME_INVALID', 'the request is too long');
  const [path = '', query = ''] = target.split('?', 2);
  const match = /^\/v2\/(.+)\/(manifests|blobs|referrers)\/([^/]+)$/.exec(path);
  if (match === null)
    throw new RegistryError(404, 'UNSUPPORTED', 'weir answers manifests, blobs and referrers below /v2/');
  const [, name = '', kind, encodedReference = ''] = match;
  // Names hold nothing that needs encoding, so an encoded one is an attempt to smuggle a slash or a dot.
  if (!isRepository(name))
    throw new RegistryError(400, 'NAME_INVALID', `"${shown(name)}" is no repository name`);
  const { upstream, repository } = locate(name, namespaceOf(query), config, prefixes);
  const reference = decode(encodedReference);
  const digest = parseDigest(reference);
  if (kind !== 'manifests') {
    if (digest === undefined)
      throw new RegistryError(400, 'DIGEST_INVALID', `"${shown(reference)}" is no digest`);
    if (kind === 'blobs') return { kind: 'blob', upstream, repository, digest };
    return { kind: 'referrers', upstream, repository, digest, artifactType: artifactTypeOf(query) };
  }
  if (digest !== undefined) return { kind: 'manifest', upstream, repository, reference: { digest } };
  if (reference.includes(':'))
    throw new RegistryError(400, 'DIGEST_INVALID', `"${shown(reference)}" is no digest`);
  if (!isTag(reference)) throw new RegistryError(400, 'MANIFEST_INVALID', `"${shown(reference)}" is no tag`);
  return { kind: 'manifest', upstream, repository, reference: { tag: reference } };
}

function namespaceOf(query: string): string | undefined {
  const values = new URLSearchParams(query).getAll('ns');
  const [value] = values;
  if (value === undefined) return undefined;
  const host = parseHost(value);
  if (values.length > 1 || host === undefined)
    throw new RegistryError(400, 'NAME_INVALID', `ns=${shown(values.join(','))} is no registry host`);
  return host;
}

/** An empty one asks for nothing. */
function artifactTypeOf(query: string): string | undefined {
  return new URLSearchParams(query).get('artifactType') || undefined;
}

function locate(
  name: string,
  namespace: string | undefined,
  config: Config,
  prefixes: boolean,
): { upstream: Upstream; repository: string } {
  if (namespace !== undefined)
    return { upstream: configured(namespace, config), repository: named(namespace, name) };
  const slash = name.indexOf('/');
  const first = slash === -1 ? name : name.slice(0, slash);
  const host = prefixes ? hostForPrefix(config, first) : undefined;
  if (host === undefined)
    return { upstream: configured(DOCKER_HUB, config), repository: named(DOCKER_HUB, name) };
  if (slash === -1) throw new RegistryError(400, 'NAME_INVALID', `a repository is wanted behind "${first}/"`);
  return { upstream: configured(host, config), repository: named(host, name.slice(slash + 1)) };
}

function configured(host: string, config: Config): Upstream {
  const upstream = config.upstreams.get(host);
  if (upstream !== undefined) return upstream;
  throw new RegistryError(
    404,
    'NAME_UNKNOWN',
    `${host} is no upstream of this mirror; add it to the configuration's "upstreams"`,
  );
}

function named(host: string, name: string): string {
  return host === DOCKER_HUB ? hubRepository(name) : name;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    if (!(cause instanceof URIError)) throw cause;
    throw new RegistryError(400, 'MANIFEST_INVALID', `"${shown(text)}" is not encoded rightly`, { cause });
  }
}

/** Client text in a message: short, and free of control characters. */
function shown(text: string): string {
  const plain = text.replaceAll(/[^\x20-\x7e]/g, '?');
  return plain.length > 80 ? `${plain.slice(0, 80)}…` : plain;
}
