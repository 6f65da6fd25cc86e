import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry as Metrics } from 'prom-client';
import type { Config } from '../config/config.ts';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import { RegistryError } from '../oci/errors.ts';
import { PLATFORM_HEADER } from '../oci/platform.ts';
import { AddressGuard } from './address-guard.ts';
import {
  answerBlob,
  answerBlobHead,
  answerError,
  answerManifest,
  askedRange,
  RangeOutside,
} from './answer.ts';
import { BlobCache } from './blob-cache.ts';
import { answerCanary, parseCanaryRequest } from './canary.ts';
import { DEFAULT_TIMEOUTS, Egress, type Timeouts } from './egress.ts';
import { ManifestCache } from './manifest-cache.ts';
import { NodePlatforms } from './node-platforms.ts';
import { type PullRequest, parsePull } from './pull-request.ts';
import { answerReferrers } from './referrers-answer.ts';
import { ReferrersCache } from './referrers-cache.ts';
import type { Store } from './store.ts';
import { StoreTroubleError } from './store-trouble.ts';
import { UpstreamClient } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';
import { Warmer } from './warmer.ts';
import { within } from './within.ts';

export interface RegistryOptions {
  readonly store: Store;
  /** Directory for blobs on their way into the store. */
  readonly spoolDirectory: string;
  /** Bytes that blobs on their way may take there together. */
  readonly spoolLimit: number;
  /** The configuration in force at the moment. */
  readonly config: () => Config;
  /** Whether a first path component may name an upstream; see {@link parsePull}. */
  readonly prefixes: boolean;
  readonly caDirectory?: string;
  /** The docker config.json that holds what `credentials` names; read again for each request upstream. */
  readonly dockerConfig?: string;
  /** Addresses that upstreams must not lead to, besides those of every machine. */
  readonly apiServers?: readonly string[];
  readonly timeouts?: Timeouts;
  /** Milliseconds for which it is remembered that an upstream does not have something. */
  readonly absentTtl?: number;
  /** `name/version` for upstreams. */
  readonly product: string;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** Mirrors behind one another; more are a loop. */
const MAX_HOPS = 8;
/** How long what is being stored may take at the end. */
const CLOSE_MS = 10_000;
/** Long enough for a burst of nodes, short enough for somebody who has just pushed. */
const ABSENT_TTL_MS = 5_000;

/** The pull-through registry: what answers below `/v2/`. */
export class Registry {
  readonly #options: RegistryOptions;
  readonly #manifests: ManifestCache;
  readonly #blobs: BlobCache;
  readonly #referrers: ReferrersCache;
  readonly #egress: Egress;
  readonly #warmer: Warmer;
  readonly #platforms = new NodePlatforms();
  readonly #stop = new AbortController();
  readonly #instance = `weir-${randomUUID().slice(0, 8)}`;
  readonly #answers: Counter<'kind' | 'status' | 'cache'>;
  readonly #stale: Counter<'upstream'>;

  constructor(options: RegistryOptions) {
    this.#options = options;
    const { store, log, metrics, spoolDirectory, spoolLimit } = options;
    const guard = new AddressGuard(options.apiServers ?? []);
    this.#egress = new Egress({
      guard,
      caDirectory: options.caDirectory,
      timeouts: options.timeouts ?? DEFAULT_TIMEOUTS,
    });
    const upstream = new UpstreamClient({
      egress: this.#egress,
      guard,
      dockerConfig: options.dockerConfig,
      absentTtl: options.absentTtl ?? ABSENT_TTL_MS,
      metrics,
      product: options.product,
      via: `1.1 ${this.#instance}`,
    });
    const { signal } = this.#stop;
    this.#manifests = new ManifestCache({
      store,
      upstream,
      log,
      signal,
      onFetched: (target, manifest) => {
        this.#blobs.expect(target, manifest);
        this.#warmer.warm(target, manifest);
      },
    });
    this.#blobs = new BlobCache({ store, upstream, spoolDirectory, spoolLimit, log, signal });
    this.#warmer = new Warmer({
      manifests: this.#manifests,
      blobs: this.#blobs,
      nodes: () => this.#platforms.all,
      log,
    });
    this.#referrers = new ReferrersCache({ store, upstream, log, signal });
    const registers = [metrics];
    this.#answers = new Counter({
      name: 'weir_registry_requests_total',
      help: 'Requests by what was asked for, the status of the answer, and where it came from.',
      labelNames: ['kind', 'status', 'cache'],
      registers,
    });
    this.#stale = new Counter({
      name: 'weir_registry_stale_tags_total',
      help: 'Tags that were served although the upstream could not confirm them.',
      labelNames: ['upstream'],
      registers,
    });
    const blobs = this.#blobs;
    metrics.registerMetric(
      new Gauge({
        name: 'weir_registry_fills',
        help: 'Blobs that are being read from upstreams.',
        registers: [],
        collect(): void {
          this.set(blobs.fills);
        },
      }),
    );
  }

  /** Answers a request; never rejects. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    const began = performance.now();
    const note: Note = { kind: 'other', cache: 'none' };
    try {
      await this.#answer(request, response, note);
    } catch (error) {
      const answer = this.#refusal(error, note);
      if (answer instanceof RangeOutside) response.setHeader('content-range', `bytes */${answer.size}`);
      answerError(response, answer);
      if (answer.status >= 500 && !response.destroyed)
        this.#options.log.warn({ err: error, url: request.url }, answer.message);
    }
    this.#answers.inc({ kind: note.kind, status: String(response.statusCode), cache: note.cache });
    this.#options.log.info(
      {
        method: request.method,
        url: request.url,
        status: response.statusCode,
        cache: note.cache,
        ms: Math.round(performance.now() - began),
      },
      'answered',
    );
  }

  /** Ends fills and connections to upstreams. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('weir is stopping'));
    const parts = [this.#warmer, this.#blobs, this.#manifests, this.#referrers];
    const closed = await within(CLOSE_MS, Promise.all(parts.map((part) => part.close())));
    if (closed === undefined) this.#options.log.warn('the store is still busy and is not waited for');
    await this.#egress.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse, note: Note): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      throw new RegistryError(
        405,
        'UNSUPPORTED',
        'this registry is a mirror for pulls: it answers GET and HEAD',
      );
    }
    const via = request.headers.via ?? '';
    if (via.includes(this.#instance) || via.split(',').length > MAX_HOPS)
      throw new RegistryError(
        508,
        'UNAVAILABLE',
        'the request came round in a loop: an upstream or mirror leads back to this registry',
      );
    this.#platforms.note(request.headers[PLATFORM_HEADER]);
    const target = request.url ?? '/';
    if (/^\/v2\/?(?:\?.*)?$/.test(target)) {
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-length': 2 })
        .end(request.method === 'HEAD' ? undefined : '{}');
      return;
    }
    const canary = parseCanaryRequest(target);
    if (canary !== undefined) {
      note.kind = canary.kind;
      await answerCanary(request, response, canary);
      return;
    }
    const config = this.#options.config();
    const pull = parsePull(target, config, this.#options.prefixes);
    note.kind = pull.kind;
    await this.#pull(pull, config, request, response, note);
  }

  async #pull(
    pull: PullRequest,
    config: Config,
    request: IncomingMessage,
    response: ServerResponse,
    note: Note,
  ): Promise<void> {
    const { upstream, repository } = pull;
    // Which upstream was taken to be meant (OCI distribution specification, "Registry Proxying").
    response.setHeader('oci-namespace', upstream.host);
    const { via } = request.headers;
    const target = { config, upstream, repository, ...(via === undefined ? {} : { via }) };
    if (pull.kind === 'manifest') {
      const accept = request.headers.accept ?? MANIFEST_TYPES.join(', ');
      const { reference } = pull;
      const answer =
        'tag' in reference
          ? await this.#manifests.byTag(target, reference.tag, accept)
          : await this.#manifests.byDigest(target, reference.digest, accept);
      note.cache = answer.origin;
      if (answer.origin === 'stale') this.#stale.inc({ upstream: upstream.host });
      answerManifest(request, response, answer);
      return;
    }
    if (pull.kind === 'referrers') {
      const answer = await this.#referrers.list(target, pull.digest);
      note.cache = answer.origin;
      answerReferrers(request, response, answer, pull.artifactType);
      return;
    }
    if (request.method === 'HEAD') {
      const { size, origin } = await this.#blobs.size(target, pull.digest);
      note.cache = origin;
      answerBlobHead(response, pull.digest, size, origin);
      return;
    }
    const { blob, origin } = await this.#blobs.open(target, pull.digest, askedRange(request, pull.digest));
    note.cache = origin;
    try {
      await answerBlob(request, response, pull.digest, blob, origin);
    } finally {
      await blob.close();
    }
  }

  #refusal(error: unknown, note: Note): RegistryError {
    if (error instanceof RegistryError) return error;
    if (error instanceof UpstreamFailure && error.kind === 'absent')
      return new RegistryError(
        404,
        note.kind === 'blob' ? 'BLOB_UNKNOWN' : 'MANIFEST_UNKNOWN',
        error.message,
      );
    if (error instanceof UpstreamFailure || error instanceof StoreTroubleError)
      return new RegistryError(503, 'UNAVAILABLE', error.message);
    return new RegistryError(503, 'UNAVAILABLE', 'the mirror failed; its log says why');
  }
}

interface Note {
  kind: PullRequest['kind'] | 'canary' | 'other';
  cache: string;
}
