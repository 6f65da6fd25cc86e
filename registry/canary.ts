import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  CANARY_HOST,
  CANARY_TAG,
  type Canary,
  type CanaryContent,
  canaryOf,
  parseCanary,
} from '../oci/canary.ts';
import { RegistryError } from '../oci/errors.ts';
import { answerBlob, answerBlobHead, answerManifest } from './answer.ts';
import type { StoredBlob } from './store.ts';

/** What a node asks for to prove that its runtime obeys: it comes from nowhere but its own name. */
export interface CanaryRequest {
  readonly kind: 'canary';
  readonly canary: Canary;
  readonly part: CanaryContent;
}

/**
 * Reads a request target that names {@link CANARY_HOST} as its namespace, as containerd does, or at the begin of its
 * path, as CRI-O does; `undefined` for every other. No configuration is asked: neither is it an upstream nor can one be.
 *
 * @throws RegistryError 404 for all that is no part of a canary.
 */
export function parseCanaryRequest(target: string): CanaryRequest | undefined {
  if (!target.includes(CANARY_HOST)) return undefined;
  const [path = '', query = ''] = target.split('?', 2);
  const namespace = new URLSearchParams(query).get('ns')?.toLowerCase();
  const byPath = `/v2/${CANARY_HOST}/`;
  const isByPath = namespace === undefined && path.startsWith(byPath);
  if (namespace !== CANARY_HOST && !isByPath) return undefined;
  const rest = path.slice(isByPath ? byPath.length : '/v2/'.length);
  const [, repository = '', kind, encoded = ''] =
    /^([^/]+\/[^/]+)\/(manifests|blobs)\/([^/]+)$/.exec(rest) ?? [];
  const name = parseCanary(repository);
  if (name === undefined)
    throw new RegistryError(404, 'NAME_UNKNOWN', `${CANARY_HOST} has images ARCHITECTURE/NONCE, and no more`);
  const canary = canaryOf(name);
  const { manifest, config, layer } = canary;
  const reference = encoded.replace(/^(sha256)%3a/i, '$1:');
  if (kind === 'manifests' && (reference === CANARY_TAG || reference === manifest.digest))
    return { kind: 'canary', canary, part: manifest };
  const blob = [config, layer].find(({ digest }) => digest === reference);
  if (kind === 'blobs' && blob !== undefined) return { kind: 'canary', canary, part: blob };
  const code = kind === 'blobs' ? 'BLOB_UNKNOWN' : 'MANIFEST_UNKNOWN';
  throw new RegistryError(404, code, `this image of ${CANARY_HOST} has no such part`);
}

/** @throws Error when the client leaves. */
export async function answerCanary(
  request: IncomingMessage,
  response: ServerResponse,
  { canary, part }: CanaryRequest,
): Promise<void> {
  response.setHeader('oci-namespace', CANARY_HOST);
  const { digest, bytes } = part;
  if (part === canary.manifest)
    answerManifest(request, response, { manifest: part, origin: 'hit', overdue: 0 });
  else if (request.method === 'HEAD') answerBlobHead(response, digest, bytes.length, 'hit');
  else await answerBlob(request, response, digest, blobOf(bytes), 'hit');
}

function blobOf(bytes: Buffer): StoredBlob {
  return {
    size: bytes.length,
    copyTo: (write, { start, end }) => write(bytes.subarray(start, end + 1)),
    close: () => Promise.resolve(),
  };
}
