import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { Digest } from '../oci/digest.ts';
import { type Answer, type Ask, HttpConnection } from './http-connection.ts';
import type { Descriptor, Pushed } from './upstream-control.ts';

export interface ClientOptions {
  readonly origin: string;
  /** The registry host that the mirror is told; `undefined` towards the registry itself. */
  readonly ns: string | undefined;
  /** Whether bodies are compared with their digests. */
  readonly verify?: boolean;
  /** How fast it takes bodies, where it is slow. */
  readonly bytesPerSecond?: number | undefined;
}

export interface Blob extends Answer {
  /** Milliseconds from the request to the first byte. */
  readonly firstByteMs: number;
  readonly milliseconds: number;
  /** Whether what came is what was asked for; `undefined` when nobody looked, or not all came. */
  readonly right: boolean | undefined;
}

export interface Pulled {
  readonly milliseconds: number;
  /** As in the manifest. */
  readonly layers: readonly Blob[];
}

/** What containerd fetches at once, by its default. */
const CONCURRENT_BLOBS = 3;
const ACCEPT =
  'application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, ' +
  'application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*';
const tokenSchema = z.object({ token: z.string() });

/** Asks as containerd does, reads and discards. A new one has no connections, as containerd has none after a pause. */
export class ContainerdClient {
  readonly #options: ClientOptions;
  readonly #idle: HttpConnection[] = [];
  #authorization: string | undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  /** HEAD resolves the tag, and everything after that is asked for by digest. @throws Error when something is missing. */
  async pull({ repository, manifest, config, layers }: Pushed): Promise<Pulled> {
    const began = performance.now();
    const head = await this.manifest(repository, 'latest', 'HEAD');
    const digest = head.headers.get('docker-content-digest');
    if (head.status !== 200 || digest !== manifest.digest)
      throw new Error(`HEAD was answered ${head.status}`);
    const got = await this.manifest(repository, digest);
    if (got.status !== 200 || !got.whole) throw new Error(`the manifest was answered ${got.status}`);
    const answers = await inTurn([config, ...layers], (blob) => this.blob(repository, blob));
    const failed = answers.find((answer) => !isRight(answer));
    if (failed !== undefined) throw new Error(`a blob was answered ${failed.status}, ${failed.bytes} bytes`);
    return { milliseconds: performance.now() - began, layers: answers.slice(1) };
  }

  async manifest(repository: string, reference: string, method: 'GET' | 'HEAD' = 'GET'): Promise<Answer> {
    return await this.#ask({
      method,
      path: `/v2/${repository}/manifests/${reference}`,
      headers: { accept: ACCEPT },
    });
  }

  /** `leaveAt`: the client leaves once it has so many bytes. */
  async blob(
    repository: string,
    { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
    leaveAt = Infinity,
  ): Promise<Blob> {
    const hash = this.#options.verify === true ? createHash('sha256') : undefined;
    let bytes = 0;
    const began = performance.now();
    const answer = await this.#ask({
      method: 'GET',
      path: `/v2/${repository}/blobs/${digest}`,
      headers: { accept: 'application/vnd.oci.image.layer.v1.tar+gzip, */*' },
      bytesPerSecond: this.#options.bytesPerSecond,
      onBody: (piece) => {
        bytes += piece.length;
        hash?.update(piece);
        return bytes < leaveAt;
      },
    });
    const isWhole = answer.whole && answer.status === 200 && answer.bytes === size;
    return {
      ...answer,
      whole: isWhole,
      firstByteMs: answer.firstByteAt - began,
      milliseconds: answer.endedAt - began,
      right: hash === undefined || !isWhole ? undefined : isDigestOf(hash.digest('hex'), digest),
    };
  }

  close(): void {
    for (const connection of this.#idle) connection.close();
  }

  async #ask(ask: Ask): Promise<Answer> {
    const answer = await this.#send(ask);
    if (answer.status !== 401 || this.#authorization !== undefined) return answer;
    const [, realm, scope] =
      /realm="([^"]+)".*scope="([^"]+)"/.exec(answer.headers.get('www-authenticate') ?? '') ?? [];
    if (realm === undefined || scope === undefined) return answer;
    const { origin, pathname } = new URL(realm);
    if (origin !== this.#options.origin) throw new Error(`the token service ${origin} is another origin`);
    let text = '';
    const onBody = (piece: Buffer): boolean => {
      text += piece.toString('utf8');
      return true;
    };
    await this.#send({ method: 'GET', path: `${pathname}?scope=${encodeURIComponent(scope)}`, onBody });
    this.#authorization = `Bearer ${tokenSchema.parse(JSON.parse(text)).token}`;
    return await this.#send(ask);
  }

  async #send(ask: Ask): Promise<Answer> {
    const { origin, ns } = this.#options;
    let connection = this.#idle.pop();
    while (connection?.isOpen === false) connection = this.#idle.pop();
    connection ??= await HttpConnection.open(origin);
    const path = ns === undefined ? ask.path : `${ask.path}?ns=${ns}`;
    const authorization = this.#authorization === undefined ? {} : { authorization: this.#authorization };
    const answer = await connection.request({ ...ask, path, headers: { ...ask.headers, ...authorization } });
    if (connection.isOpen) this.#idle.push(connection);
    return answer;
  }
}

export function isRight({ status, whole, right }: Blob): boolean {
  return status === 200 && whole && right !== false;
}

/** Maps as many at once as containerd would. */
async function inTurn<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  const worker = async (): Promise<void> => {
    for (const [index, item] of queue) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: CONCURRENT_BLOBS }, worker));
  return results;
}

function isDigestOf(hex: string, digest: Digest): boolean {
  return digest === `sha256:${hex}`;
}
