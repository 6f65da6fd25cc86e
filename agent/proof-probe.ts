import { get as getHttp } from 'node:http';
import { get as getHttps } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { CANARY_HOST, CANARY_TAG, type Canary } from '../oci/canary.ts';
import { digestOf } from '../oci/digest.ts';
import { messageOf } from '../process/file-problem.ts';

const PATIENCE_MS = 5_000;

/**
 * Why the mirror does not give the canary, in all its parts, to whoever asks for it; `undefined` when it does.
 *
 * @param mirror its URL as it stands in hosts.toml.
 * @param ca PEM of the authority that signs its certificate; without it, those that everybody trusts.
 * @throws only what the signal was aborted with.
 */
export async function mirrorProblem(
  mirror: string,
  { repository, manifest, config, layer }: Canary,
  { ca, signal }: { readonly ca?: string | undefined; readonly signal?: AbortSignal | undefined },
): Promise<string | undefined> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const either = AbortSignal.any([patience, ...(signal ? [signal] : [])]);
  const parts = [
    { path: `manifests/${CANARY_TAG}`, content: manifest },
    { path: `blobs/${config.digest}`, content: config },
    { path: `blobs/${layer.digest}`, content: layer },
  ];
  try {
    for (const { path, content } of parts) {
      const url = new URL(`${apiOf(mirror)}/${repository}/${path}?ns=${CANARY_HOST}`);
      const { status, bytes } = await get(url, { signal: either, ...(ca === undefined ? {} : { ca }) });
      if (status !== 200) return `${mirror} answers ${status}`;
      if (digestOf(bytes) !== content.digest) return `${mirror} is not weir, or of another version`;
    }
    return undefined;
  } catch (error) {
    signal?.throwIfAborted();
    return patience.aborted
      ? `${mirror} says nothing within ${PATIENCE_MS / 1000} s`
      : `${mirror}: ${messageOf(error)}`;
  }
}

/** The root of the API, as containerd finds it: `/v2` is appended to a path that does not have it. */
function apiOf(mirror: string): string {
  const base = mirror.replace(/\/+$/, '');
  return /\/v2(?:\/|$)/.test(new URL(base).pathname) ? base : `${base}/v2`;
}

/** Not by `fetch`, which refuses some ports that a mirror may well have. */
async function get(
  url: URL,
  trust: { readonly signal: AbortSignal; readonly ca?: string },
): Promise<{ readonly status: number | undefined; readonly bytes: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | undefined; bytes: Buffer }>();
  const send = url.protocol === 'https:' ? getHttps : getHttp;
  send(url, { ...trust, agent: false }, (response) => {
    const { statusCode: status } = response;
    buffer(response).then((bytes) => resolve({ status, bytes }), reject);
  }).on('error', reject);
  return promise;
}
