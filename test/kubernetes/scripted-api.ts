// An API server over real sockets that keeps objects, watches them as Kubernetes does, and fails as it is told to.

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import * as z from 'zod';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

export type ApiObject = Readonly<Record<string, unknown>> & {
  readonly metadata?: Readonly<Record<string, unknown>>;
};

export interface ApiRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly isWatch: boolean;
  readonly body: unknown;
  readonly response: ServerResponse;
}

/** Answers a request itself, and says so with `true`. */
type Fault = (request: ApiRequest) => boolean;

const patchSchema = z.record(z.string(), z.unknown());
const objectSchema = z.looseObject({
  metadata: z.looseObject({ name: z.string().optional(), generateName: z.string().optional() }),
});

export class ScriptedApi {
  /** What a client is to have as `KUBECONFIG`. */
  readonly kubeconfig: string;
  readonly requests: Omit<ApiRequest, 'response'>[] = [];
  fault: Fault = () => false;
  readonly #objects = new Map<string, ApiObject>();
  readonly #watches = new Set<{
    readonly path: string;
    readonly name: string | null;
    readonly since: number;
    readonly response: ServerResponse;
  }>();
  readonly #history: { readonly version: number; readonly path: string; readonly line: string }[] = [];
  #version = 100;

  private constructor(kubeconfig: string) {
    this.kubeconfig = kubeconfig;
  }

  static async start(t: TestContext): Promise<ScriptedApi> {
    const scratch = await makeScratch();
    const api = new ScriptedApi(join(scratch, 'kubeconfig.json'));
    const server = createServer((request, response) => void api.#answer(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(async () => {
      server.close();
      server.closeAllConnections();
      await removeScratch(scratch);
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    await writeFile(api.kubeconfig, kubeconfigFor(`http://127.0.0.1:${address.port}`));
    return api;
  }

  get watches(): number {
    return this.#watches.size;
  }

  get(path: string): ApiObject | undefined {
    return this.#objects.get(path);
  }

  names(collection: string): string[] {
    return this.#in(collection, null).map(({ metadata }) => String(metadata?.['name']));
  }

  /** Puts an object at its path (`/api/v1/namespaces/weir/configmaps/weir`), or takes it away; watches are told. */
  set(path: string, object: ApiObject | undefined): void {
    const before = this.#objects.get(path);
    const name = path.slice(path.lastIndexOf('/') + 1);
    this.#version += 1;
    const resourceVersion = String(this.#version);
    const now = {
      ...(object ?? before),
      metadata: { ...(object ?? before)?.metadata, name, resourceVersion },
    };
    if (object === undefined) this.#objects.delete(path);
    else this.#objects.set(path, now);
    const type = object === undefined ? 'DELETED' : before === undefined ? 'ADDED' : 'MODIFIED';
    const event = { version: this.#version, path, line: `${JSON.stringify({ type, object: now })}\n` };
    this.#history.push(event);
    // A watch from a version that is yet to come hears of nothing before that.
    for (const watch of this.#watches)
      if (event.version > watch.since && isFor(watch, path)) watch.response.write(event.line);
  }

  /** An event of no object, such as `ERROR`, on every watch. */
  tell(type: string, object: object): void {
    for (const { response } of this.#watches) response.write(`${JSON.stringify({ type, object })}\n`);
  }

  /** Ends every watch: as servers do after a while, or as a connection that breaks. */
  endWatches(how: 'end' | 'break'): void {
    for (const { response } of this.#watches) {
      if (how === 'end') response.end();
      else response.destroy();
    }
  }

  /** The version that objects have counts from here, as after a restored backup. */
  rewind(version: number): void {
    this.#version = version;
    this.#history.length = 0;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '' } = request;
    const url = new URL(request.url ?? '', 'http://api');
    const isWatch = url.searchParams.get('watch') === 'true';
    const body = method === 'GET' ? undefined : await json(request).catch(() => undefined);
    const asked = { method, path: url.pathname, query: url.searchParams, isWatch, body };
    this.requests.push(asked);
    if (this.fault({ ...asked, response })) return;
    const name = /^metadata\.name=(.+)$/.exec(url.searchParams.get('fieldSelector') ?? '')?.[1] ?? null;
    if (isWatch) this.#watch(asked.path, name, Number(url.searchParams.get('resourceVersion')), response);
    else if (method === 'GET') this.#read(asked, name, response);
    else this.#change(method, asked.path, body, response);
  }

  #watch(path: string, name: string | null, since: number, response: ServerResponse): void {
    const watch = { path, name, since, response };
    this.#watches.add(watch);
    response.once('close', () => this.#watches.delete(watch));
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    for (const event of this.#history)
      if (event.version > since && isFor(watch, event.path)) response.write(event.line);
  }

  #read({ path, query }: Omit<ApiRequest, 'response'>, name: string | null, response: ServerResponse): void {
    const object = this.#objects.get(path);
    if (object !== undefined) answer(response, 200, object);
    else if (/\/(?:[a-z]+s|endpointslices)$/.test(path)) answer(response, 200, this.#list(path, name, query));
    else refuse(response, 404);
  }

  #list(path: string, name: string | null, query: URLSearchParams): object {
    const all = this.#in(path, name).filter((one) => hasLabel(one, query.get('labelSelector') ?? ''));
    const from = Number(query.get('continue') ?? 0);
    const to = from + Number(query.get('limit') ?? all.length);
    const more = to < all.length ? { continue: String(to) } : {};
    return { metadata: { resourceVersion: String(this.#version), ...more }, items: all.slice(from, to) };
  }

  #change(method: string, path: string, body: unknown, response: ServerResponse): void {
    if (method === 'POST') {
      const given = objectSchema.parse(body);
      const name = given.metadata.name ?? `${given.metadata.generateName}${this.#version}`;
      if (this.#objects.has(`${path}/${name}`)) refuse(response, 409);
      else {
        this.set(`${path}/${name}`, given);
        answer(response, 201, this.#objects.get(`${path}/${name}`));
      }
      return;
    }
    const before = this.#objects.get(path);
    if (before === undefined) {
      refuse(response, 404);
      return;
    }
    if (method === 'DELETE') this.set(path, undefined);
    else
      this.set(path, method === 'PUT' ? objectSchema.parse(body) : merged(before, patchSchema.parse(body)));
    answer(response, 200, this.#objects.get(path) ?? { status: 'Success' });
  }

  #in(path: string, name: string | null): ApiObject[] {
    return [...this.#objects].flatMap(([at, object]) =>
      at.startsWith(`${path}/`) && (name === null || at === `${path}/${name}`) ? [object] : [],
    );
  }
}

/** Whether a watch of a collection, or of one object in it, hears of what happens at this path. */
function isFor(watch: { readonly path: string; readonly name: string | null }, path: string): boolean {
  const cut = path.lastIndexOf('/');
  return watch.path === path.slice(0, cut) && (watch.name === null || watch.name === path.slice(cut + 1));
}

/** Of selectors, `key` and `key=value` are understood; others select everything. */
function hasLabel({ metadata }: ApiObject, selector: string): boolean {
  const [, key, value] = /^([\w./-]+)(?:=([\w.-]+))?$/.exec(selector) ?? [];
  if (key === undefined) return true;
  const found = patchSchema.safeParse(metadata?.['labels']).data?.[key];
  return value === undefined ? found !== undefined : found === value;
}

/** Refuses as the API server does. */
export function refuse(response: ServerResponse, code: number, message = `refused with ${code}`): void {
  answer(response, code, { kind: 'Status', status: 'Failure', code, message });
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

/** RFC 7396. */
function merged(before: Record<string, unknown>, patch: Record<string, unknown>): Record<string, unknown> {
  const result = { ...before };
  for (const [key, value] of Object.entries(patch)) {
    const inner = patchSchema.safeParse(value);
    if (value === null) delete result[key];
    else if (inner.success && !Array.isArray(value))
      result[key] = merged(patchSchema.safeParse(before[key]).data ?? {}, inner.data);
    else result[key] = value;
  }
  return result;
}

function kubeconfigFor(server: string): string {
  return JSON.stringify({
    clusters: [{ name: 'test', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'test', user: { token: 'test' } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  });
}
