import { get as getHttp, Agent as HttpAgent } from 'node:http';
import { get as getHttps, Agent as HttpsAgent } from 'node:https';
import { buffer } from 'node:stream/consumers';
import * as z from 'zod';
import { CANARY_HOST, CANARY_TAG, type Canary } from '../oci/canary.ts';
import { digestOf } from '../oci/digest.ts';
import { parseJson } from '../oci/json.ts';
import { messageOf } from '../process/file-problem.ts';

const PATIENCE_MS = 5_000;

export interface ProbeOptions {
  /** PEM of the authority that signs the mirror's certificate; without it, those that everybody trusts. */
  readonly ca?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** One blob will do: whoever asks again and again is not to cost more than it tells. */
  readonly isBrief?: boolean;
}

/**
 * Why the mirror does not give the canary to whoever asks for it; `undefined` when it does.
 *
 * @param mirror its URL as it stands in hosts.toml.
 * @throws only what the signal was aborted with.
 */
export async function mirrorProblem(
  mirror: string,
  { repository, manifest, config, layer }: Canary,
  { ca, signal, isBrief = false }: ProbeOptions,
): Promise<string | undefined> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const either = AbortSignal.any([patience, ...(signal ? [signal] : [])]);
  const parts = [
    { path: `manifests/${CANARY_TAG}`, content: manifest },
    ...(isBrief ? [] : [{ path: `blobs/${config.digest}`, content: config }]),
    { path: `blobs/${layer.digest}`, content: layer },
  ];
  const api = apiOf(mirror);
  // One connection for all parts, and none after that.
  const agent = new (api.startsWith('https:') ? HttpsAgent : HttpAgent)({ keepAlive: true, maxSockets: 1 });
  try {
    for (const { path, content } of parts) {
      const url = new URL(`${api}/${repository}/${path}?ns=${CANARY_HOST}`);
      const trust = ca === undefined ? {} : { ca };
      const { status, bytes } = await get(url, { signal: either, agent, ...trust });
      if (status !== 200) return `${mirror} answers ${status}${saidIn(bytes)}`;
      if (digestOf(bytes) !== content.digest) return `${mirror} is not weir, or of another version`;
    }
    return undefined;
  } catch (error) {
    signal?.throwIfAborted();
    return patience.aborted
      ? `${mirror} says nothing within ${PATIENCE_MS / 1000} s`
      : `${mirror}: ${messageOf(error)}`;
  } finally {
    agent.destroy();
  }
}

/** The root of the API, as containerd finds it: `/v2` is appended to a path that does not have it. */
function apiOf(mirror: string): string {
  const base = mirror.replace(/\/+$/, '');
  return /\/v2(?:\/|$)/.test(new URL(base).pathname) ? base : `${base}/v2`;
}

const refusalSchema = z.object({ errors: z.array(z.object({ message: z.string() })).min(1) });
const MAX_SAID = 300;

/** The reason that an answer gives: the door's is why it has no replica. */
function saidIn(bytes: Buffer): string {
  const [error] = refusalSchema.safeParse(parseJson(bytes.toString('utf8'))).data?.errors ?? [];
  return error === undefined ? '' : `: ${error.message.slice(0, MAX_SAID)}`;
}

/** Not by `fetch`, which refuses some ports that a mirror may well have. */
async function get(
  url: URL,
  options: { readonly signal: AbortSignal; readonly agent: HttpAgent; readonly ca?: string },
): Promise<{ readonly status: number | undefined; readonly bytes: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | undefined; bytes: Buffer }>();
  const send = url.protocol === 'https:' ? getHttps : getHttp;
  send(url, options, (response) => {
    const { statusCode: status } = response;
    buffer(response).then((bytes) => resolve({ status, bytes }), reject);
  }).on('error', reject);
  return promise;
}
