import {
  ApiException,
  type CoreV1Event,
  HttpMethod,
  IsomorphicFetchHttpLibrary,
  PatchStrategy,
  RequestContext,
  type V1ClusterRole,
  type V1ConfigMap,
  type V1DaemonSet,
  type V1Deployment,
  type V1EndpointSlice,
  type V1Lease,
  type V1MutatingWebhookConfiguration,
  type V1Namespace,
  type V1Node,
  type V1Pod,
  type V1Secret,
  type V1Service,
  type V1ValidatingWebhookConfiguration,
  Watch,
} from '@kubernetes/client-node';
import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import type { OneConnection } from './one-connection.ts';

/** The collections of objects that weir speaks of, under the names that they have in paths and roles. */
interface Kinds {
  readonly clusterroles: V1ClusterRole;
  readonly configmaps: V1ConfigMap;
  readonly daemonsets: V1DaemonSet;
  readonly deployments: V1Deployment;
  readonly endpointslices: V1EndpointSlice;
  readonly events: CoreV1Event;
  readonly leases: V1Lease;
  readonly mutatingwebhookconfigurations: V1MutatingWebhookConfiguration;
  readonly namespaces: V1Namespace;
  readonly nodes: V1Node;
  readonly pods: V1Pod;
  readonly secrets: V1Secret;
  readonly services: V1Service;
  readonly validatingwebhookconfigurations: V1ValidatingWebhookConfiguration;
}

export type Collection = keyof Kinds;

/** As it is sent: what the client's types have as a `Date` is text there. */
export type Sent<Type> = Type extends Date
  ? string
  : Type extends object
    ? { [Key in keyof Type]: Sent<Type[Key]> }
    : Type;

/** An object of a collection (`Sent<V1Node>` of `nodes`). */
export type ObjectOf<Name extends Collection> = Sent<Kinds[Name]>;

export interface ListOf<Name extends Collection> {
  /** `continue` where there are more. */
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items: readonly ObjectOf<Name>[];
}

/** Which objects of a collection: all of them, or those of a namespace, or those that the selectors select. */
export interface Selection {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

/** A part of a list: so many objects, from where the part before it ended. */
export interface Page {
  readonly limit?: number;
  readonly continue?: string;
}

/** Where an object is; those of the whole cluster have no namespace. */
export interface Place {
  readonly namespace?: string;
  readonly name: string;
}

const CORE = '/api/v1';
const ADMISSION = '/apis/admissionregistration.k8s.io/v1';
const APPS = '/apis/apps/v1';
const GROUPS: Readonly<Record<Collection, string>> = {
  clusterroles: '/apis/rbac.authorization.k8s.io/v1',
  configmaps: CORE,
  daemonsets: APPS,
  deployments: APPS,
  endpointslices: '/apis/discovery.k8s.io/v1',
  events: CORE,
  leases: '/apis/coordination.k8s.io/v1',
  mutatingwebhookconfigurations: ADMISSION,
  namespaces: CORE,
  nodes: CORE,
  pods: CORE,
  secrets: CORE,
  services: CORE,
  validatingwebhookconfigurations: ADMISSION,
};
const JSON_BODY = 'application/json';
const PATCH_BODIES = { json: PatchStrategy.JsonPatch, merge: PatchStrategy.MergePatch } as const;
/** An answer to a single request; what a watch waits for is another matter. */
const ANSWER_MS = 10_000;
/** A watch without a byte for so long is dead: twice the time between two of the API server's bookmarks. */
const QUIET_MS = 120_000;

export interface KubernetesOptions {
  /** For the API server's log and audit: `weir/1.2.3`. */
  readonly product: string;
  readonly quietMs?: number;
}

/**
 * The Kubernetes API, as far as weir speaks to it. How the API server is found and convinced, and how it is watched,
 * is the Kubernetes client's; its class for each kind of object, which would be most of an agent, is not used.
 *
 * Every method throws {@link ApiException} when the API server refuses, Error when it does not answer within 10 s.
 */
export class Kubernetes {
  readonly #config: OneConnection;
  readonly #product: string;
  readonly #http = new IsomorphicFetchHttpLibrary();
  readonly #watch: Watch;

  constructor(config: OneConnection, { product, quietMs = QUIET_MS }: KubernetesOptions) {
    this.#config = config;
    this.#product = product;
    this.#watch = new Watch(config);
    // Its own 30 s would have every watch of every node opened anew twice a minute.
    Object.assign(this.#watch, { requestTimeoutMs: quietMs });
  }

  read<Name extends Collection>(collection: Name, place: Place): Promise<ObjectOf<Name>> {
    return this.#send(HttpMethod.GET, pathOf(collection, place));
  }

  list<Name extends Collection>(collection: Name, selection: Selection & Page = {}): Promise<ListOf<Name>> {
    const { limit, continue: from } = selection;
    const query = {
      ...queryOf(selection),
      ...(limit === undefined ? {} : { limit: String(limit) }),
      ...(from === undefined ? {} : { continue: from }),
    };
    return this.#send(HttpMethod.GET, pathOf(collection, selection), { query });
  }

  /**
   * What happens to the selected objects after a version of their list.
   *
   * @param ended is told once, with an error unless the API server ended the watch as it does after a while.
   */
  async watch<Name extends Collection>(
    collection: Name,
    selection: Selection & { readonly resourceVersion: string | undefined },
    happened: (type: string, object: ObjectOf<Name> & { readonly message?: string }) => void,
    ended: (error: unknown) => void,
  ): Promise<AbortController> {
    const query = { ...queryOf(selection), resourceVersion: selection.resourceVersion, ...BOOKMARKS };
    return await this.#watch.watch(pathOf(collection, selection), query, happened, ended);
  }

  create<Name extends Collection>(
    collection: Name,
    object: ObjectOf<Name>,
    namespace?: string,
  ): Promise<ObjectOf<Name>> {
    const path = pathOf(collection, namespace === undefined ? {} : { namespace });
    return this.#send(HttpMethod.POST, path, { body: object });
  }

  /** Refused with 409 when the object has another version by now. */
  replace<Name extends Collection>(
    collection: Name,
    place: Place,
    object: ObjectOf<Name>,
  ): Promise<ObjectOf<Name>> {
    return this.#send(HttpMethod.PUT, pathOf(collection, place), { body: object });
  }

  /** By a merge patch (RFC 7396), or a JSON Patch (RFC 6902). */
  patch<Name extends Collection>(
    collection: Name,
    place: Place,
    patch: { readonly merge: object } | { readonly json: readonly object[] },
  ): Promise<ObjectOf<Name>> {
    const [type, body] =
      'merge' in patch ? (['merge', patch.merge] as const) : (['json', patch.json] as const);
    return this.#send(HttpMethod.PATCH, pathOf(collection, place), { body, type: PATCH_BODIES[type] });
  }

  async remove(
    collection: Collection,
    place: Place,
    options: { readonly propagationPolicy?: 'Foreground'; readonly gracePeriodSeconds?: number } = {},
  ): Promise<void> {
    await this.#send(HttpMethod.DELETE, pathOf(collection, place), { body: options });
  }

  async #send<Answer>(
    method: HttpMethod,
    path: string,
    { query = {}, body, type = JSON_BODY }: SendOptions = {},
  ): Promise<Answer> {
    const request = new RequestContext(`${this.#config.getCurrentCluster()?.server ?? ''}${path}`, method);
    for (const [key, value] of Object.entries(query)) request.setQueryParam(key, value);
    request.setHeaderParam('accept', JSON_BODY);
    request.setHeaderParam('user-agent', this.#product);
    if (body !== undefined) request.setHeaderParam('content-type', type);
    await this.#config.applySecurityAuthentication(request);
    const { status, text } = await this.#ask(request, body === undefined ? undefined : JSON.stringify(body));
    if (status < 200 || status > 299) throw new ApiException(status, 'refused', text, {});
    const sent = sentSchema<Answer>().safeParse(parseJson(text));
    if (!sent.success) throw new Error(`the API server answers ${status} with what is no JSON object`);
    return sent.data;
  }

  /** On the shared connection itself: `fetch`, as the client does it, has answers wait for its garbage under load. */
  async #ask(request: RequestContext, body: string | undefined): Promise<Received> {
    const signal = AbortSignal.timeout(ANSWER_MS);
    const dispatcher = request.getDispatcher();
    if (dispatcher === undefined) {
      request.setSignal(signal);
      if (body !== undefined) request.setBody(body);
      const answer = await this.#http.send(request).toPromise();
      return { status: answer.httpStatusCode, text: await answer.body.text() };
    }
    const { origin, pathname, search } = new URL(request.getUrl());
    const answer = await dispatcher.request({
      origin,
      path: `${pathname}${search}`,
      method: request.getHttpMethod(),
      headers: request.getHeaders(),
      body: body ?? null,
      signal,
    });
    return { status: answer.statusCode, text: await answer.body.text() };
  }
}

interface Received {
  readonly status: number;
  readonly text: string;
}

interface SendOptions {
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  readonly type?: string;
}

/** The API server then sends something about every minute, so that a connection that is dead is told from a quiet one. */
const BOOKMARKS = { allowWatchBookmarks: true };

/** An intermediary's page is no object; what is one has the type that the API server gives it. */
function sentSchema<Answer>() {
  return z.custom<Answer>((value) => typeof value === 'object' && value !== null);
}

function pathOf(collection: Collection, { namespace, name }: Partial<Place>): string {
  const within = namespace === undefined ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
  const one = name === undefined ? '' : `/${encodeURIComponent(name)}`;
  return `${GROUPS[collection]}${within}/${collection}${one}`;
}

function queryOf({ labelSelector, fieldSelector }: Selection): Record<string, string> {
  return {
    ...(labelSelector === undefined ? {} : { labelSelector }),
    ...(fieldSelector === undefined ? {} : { fieldSelector }),
  };
}
