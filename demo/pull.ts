import * as z from 'zod';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts';
import { digestSchema } from '../oci/digest-schema.ts';
import { parseReference } from '../oci/reference.ts';

const descriptor = z.object({ digest: digestSchema, size: z.number() });
const platform = z.object({ os: z.string(), architecture: z.string() });
const manifestSchema = z.object({
  manifests: z.array(descriptor.extend({ platform: platform.optional() })).optional(),
  config: descriptor.optional(),
  layers: z.array(descriptor).optional(),
});

export interface Pulled {
  /** Of the manifests and blobs that were read, every one of them compared with its digest. */
  readonly bytes: number;
  readonly layers: number;
  readonly milliseconds: number;
}

/**
 * Pulls an image as containerd does: `?ns=` names the registry, HEAD resolves the tag, and everything after that
 * is asked for by digest.
 *
 * @throws Error when something is missing, or is not what its digest says.
 */
export async function pull(mirror: string, image: string): Promise<Pulled> {
  const began = performance.now();
  const { host, repository, tag, digest: pinned } = parseReference(image);
  let bytes = 0;
  const get = async (path: string, wanted: Digest): Promise<Buffer> => {
    const answer = await ask(`${mirror}/v2/${repository}/${path}?ns=${host}`, 'GET');
    const body = Buffer.from(await answer.arrayBuffer());
    if (digestOf(body, algorithmOf(wanted)) !== wanted)
      throw new Error(`${path} is not what its digest says`);
    bytes += body.length;
    return body;
  };
  const manifestAt = async (wanted: Digest) => {
    const text = (await get(`manifests/${wanted}`, wanted)).toString('utf8');
    return manifestSchema.parse(JSON.parse(text));
  };

  const head = await ask(`${mirror}/v2/${repository}/manifests/${pinned ?? tag}?ns=${host}`, 'HEAD');
  let manifest = await manifestAt(digestSchema.parse(head.headers.get('docker-content-digest')));
  if (manifest.manifests !== undefined) {
    const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
    const mine = manifest.manifests.find(
      ({ platform: its }) => its?.os === 'linux' && its.architecture === architecture,
    );
    if (mine === undefined) throw new Error(`${image} is not there for linux/${architecture}`);
    manifest = await manifestAt(mine.digest);
  }
  const blobs = [...(manifest.config === undefined ? [] : [manifest.config]), ...(manifest.layers ?? [])];
  await Promise.all(blobs.map((blob) => get(`blobs/${blob.digest}`, blob.digest)));
  return { bytes, layers: manifest.layers?.length ?? 0, milliseconds: performance.now() - began };
}

async function ask(url: string, method: string): Promise<Response> {
  const answer = await fetch(url, { method, headers: { accept: MANIFEST_TYPES.join(', ') } });
  if (answer.ok) return answer;
  // The answer to a HEAD has no body; a GET says why.
  const reason = method === 'HEAD' ? await (await fetch(url)).text() : await answer.text();
  throw new Error(`${method} ${url} was answered ${answer.status}: ${reason.trim()}`);
}
