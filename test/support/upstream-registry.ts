import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Content, Image } from './image.ts';

/** One request as the upstream saw it. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
}

/** Takes over a request; `false` leaves it to the registry. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean;

/**
 * An upstream registry on a port of its own, which a test can make do what real ones do on bad days. It speaks
 * the protocol over real sockets; pulls by real clients from a real registry are what the containerd tier does.
 */
export class UpstreamRegistry {
  readonly seen: Seen[] = [];
  /** With tokens, a pull needs the anonymous Bearer token that `/token` gives, as on Docker Hub. */
  tokens = false;
  fault: Fault | undefined;
  readonly #server: Server;
  readonly #port: number;
  readonly #manifests = new Map<string, Content>();
  readonly #blobs = new Map<string, Content>();

  private constructor(server: Server) {
    this.#server = server;
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    this.#port = (address satisfies AddressInfo).port;
  }

  static async start(): Promise<UpstreamRegistry> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const registry = new UpstreamRegistry(server);
    server.on('request', (request, response) => registry.#answer(request, response));
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get url(): string {
    return `http://${this.host}`;
  }

  /** Closes the port and every connection; {@link resume} opens it again. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async resume(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
  }

  push(repository: string, tag: string, image: Image): void {
    this.pushManifest(repository, tag, image.manifest);
    for (const blob of image.blobs) this.pushBlob(repository, blob);
  }

  pushManifest(repository: string, tag: string, manifest: Content): void {
    this.#manifests.set(`${repository}:${tag}`, manifest);
    this.#manifests.set(`${repository}@${manifest.digest}`, manifest);
  }

  pushBlob(repository: string, blob: Content): void {
    this.#blobs.set(`${repository}@${blob.digest}`, blob);
  }

  deleteTag(repository: string, tag: string): void {
    this.#manifests.delete(`${repository}:${tag}`);
  }

  /** How often it was asked in this way for what ends so, such as a digest or `/manifests/latest`. */
  count(method: string, end: string): number {
    return this.seen.filter((seen) => seen.method === method && seen.path.endsWith(end)).length;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname } = new URL(request.url ?? '/', this.url);
    this.seen.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers });
    if (this.fault?.(request, response)) return;
    if (pathname === '/token') {
      sendJson(response, 200, { token: 'anonymous', expires_in: 300 });
      return;
    }
    if (this.tokens && request.headers.authorization !== 'Bearer anonymous') {
      const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(pathname)?.[1] ?? '';
      response.setHeader(
        'www-authenticate',
        `Bearer realm="${this.url}/token",service="test",scope="repository:${repository}:pull,push"`,
      );
      sendJson(response, 401, { errors: [{ code: 'UNAUTHORIZED' }] });
      return;
    }
    const [, repository, kind, reference = ''] =
      /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(pathname) ?? [];
    const separator = kind === 'manifests' && !reference.includes(':') ? ':' : '@';
    const held = kind === 'manifests' ? this.#manifests : this.#blobs;
    sendContent(request, response, held.get(`${repository}${separator}${reference}`));
  }
}

export function sendContent(
  request: IncomingMessage,
  response: ServerResponse,
  content: Content | undefined,
): void {
  if (content === undefined) {
    sendJson(response, 404, { errors: [{ code: 'NOT_FOUND' }] });
    return;
  }
  const { bytes, mediaType, digest } = content;
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  response.writeHead(from > 0 ? 206 : 200, {
    'content-type': mediaType,
    'content-length': bytes.length - from,
    'docker-content-digest': digest,
    ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : bytes.subarray(from));
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
