import { request as askHttp, Agent as HttpAgent } from 'node:http';
import { request as askHttps, Agent as HttpsAgent } from 'node:https';
import { LRUCache } from 'lru-cache';
import { trustIn } from '../process/authorities.ts';
import { Counter, type Registry as Metrics } from '../process/metrics.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { anonymousToken } from './anonymous-token.ts';
import type { ManifestPlace } from './rewrite.ts';

/**
 * - `there`: whoever asks gets that manifest;
 * - `absent`: there is none (404);
 * - `refused`: not without credentials (401, 403);
 * - `down`: no answer, or one that says nothing about the manifest;
 * - `slow`: no answer within the budget. It is waited for in the background, and known the next time.
 */
export type Found = 'there' | 'absent' | 'refused' | 'down' | 'slow';

export interface ManifestProbeOptions {
  readonly product: string;
  /** PEM of those that sign the certificate of a mirror; `undefined`: those that everybody trusts. */
  readonly authorities?: (origin: string) => string | undefined;
  readonly metrics: Metrics;
  /** Milliseconds that an admission may wait. */
  readonly budgetMs?: number;
  /** Milliseconds for what goes on in the background. */
  readonly answerMs?: number;
}

const BUDGET_MS = 300;
const ANSWER_MS = 10_000;
const MAX_KNOWN = 10_000;
const MAX_CONNECTIONS = 32;
/** A Pod that would be pulled in vain costs more than one that goes past the mirror. */
const KNOWN_MS: Readonly<Record<Exclude<Found, 'slow'>, number>> = {
  there: 30_000,
  absent: 15_000,
  refused: 15_000,
  down: 2_000,
};
const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

/** Whether a mirror gives a manifest to everybody, remembered for a while. */
export class ManifestProbe {
  readonly #product: string;
  readonly #authorities: (origin: string) => string | undefined;
  readonly #budgetMs: number;
  readonly #answerMs: number;
  readonly #known = new LRUCache<string, Exclude<Found, 'slow'>>({ max: MAX_KNOWN });
  readonly #asking = new Map<string, Promise<Exclude<Found, 'slow'>>>();
  readonly #agents = {
    'http:': new HttpAgent({ keepAlive: true, maxSockets: MAX_CONNECTIONS }),
    'https:': new HttpsAgent({ keepAlive: true, maxSockets: MAX_CONNECTIONS }),
  };
  readonly #asked: Counter<'found'>;

  constructor(options: ManifestProbeOptions) {
    const { product, metrics, budgetMs = BUDGET_MS, answerMs = ANSWER_MS } = options;
    this.#product = product;
    this.#authorities = options.authorities ?? (() => undefined);
    this.#budgetMs = budgetMs;
    this.#answerMs = answerMs;
    this.#asked = new Counter({
      name: 'weir_webhook_manifests_asked_total',
      help: 'Manifests that a mirror was asked for before an image was rewritten: there, absent, refused or down.',
      labelNames: ['found'],
      registers: [metrics],
    });
  }

  /** Never rejects. */
  async look(place: ManifestPlace): Promise<Found> {
    const known = this.#known.get(keyOf(place));
    if (known !== undefined) return known;
    const over = new AbortController();
    try {
      const late = pauseUnlessStopped(this.#budgetMs, over.signal, { ref: false });
      return await Promise.race([this.#ask(place), late.then((): Found => 'slow')]);
    } finally {
      over.abort();
    }
  }

  /** Asks for what will be wanted soon. */
  warm(place: ManifestPlace): void {
    if (!this.#known.has(keyOf(place))) void this.#ask(place);
  }

  close(): void {
    for (const agent of Object.values(this.#agents)) agent.destroy();
  }

  /** One question for all who want to know. Never rejects. */
  async #ask(place: ManifestPlace): Promise<Exclude<Found, 'slow'>> {
    const key = keyOf(place);
    const asking = this.#asking.get(key);
    if (asking !== undefined) return asking;
    const answer = this.#head(place, AbortSignal.timeout(this.#answerMs));
    this.#asking.set(key, answer);
    const found = await answer;
    this.#asking.delete(key);
    this.#known.set(key, found, { ttl: KNOWN_MS[found] });
    this.#asked.inc({ found });
    return found;
  }

  async #head(
    place: ManifestPlace,
    signal: AbortSignal,
    authorization?: string,
  ): Promise<Exclude<Found, 'slow'>> {
    const { origin, repository, reference } = place;
    const url = new URL(`/v2/${repository}/manifests/${reference}`, origin);
    const { promise, resolve } = Promise.withResolvers<Exclude<Found, 'slow'>>();
    const [ask, agent] =
      url.protocol === 'https:' ? [askHttps, this.#agents['https:']] : [askHttp, this.#agents['http:']];
    const headers = {
      accept: ACCEPT,
      'user-agent': this.#product,
      ...(authorization === undefined ? {} : { authorization }),
    };
    // A pool of connections is of the same authorities.
    const ca = this.#authorities(origin);
    const trust = ca === undefined ? {} : trustIn(ca);
    const request = ask(url, { method: 'HEAD', headers, agent, signal, ...trust });
    request.on('response', (response) => {
      response.resume();
      const found = meaning(response.statusCode);
      const challenge = response.headers['www-authenticate'];
      if (found !== 'refused' || challenge === undefined || authorization !== undefined) resolve(found);
      else resolve(this.#headWithToken(place, challenge, signal));
    });
    request.on('error', () => {
      // A connection that was kept may be closed just when it is used again.
      if (request.reusedSocket && !signal.aborted) {
        resolve(this.#head(place, signal, authorization));
        return;
      }
      this.#forget(origin);
      resolve('down');
    });
    request.end();
    return promise;
  }

  /** What was there is not to be had any more. */
  #forget(origin: string): void {
    const start = `${origin}/`;
    for (const key of this.#known.keys()) if (key.startsWith(start)) this.#known.delete(key);
  }

  /** As a runtime does that has no credentials for the mirror. */
  async #headWithToken(
    place: ManifestPlace,
    challenge: string,
    signal: AbortSignal,
  ): Promise<Exclude<Found, 'slow'>> {
    const token = await anonymousToken(challenge, place.origin, place.repository, signal);
    return token === undefined ? 'refused' : this.#head(place, signal, token);
  }
}

function meaning(status = 0): Exclude<Found, 'slow'> {
  if (status === 200) return 'there';
  if (status === 404) return 'absent';
  return status === 401 || status === 403 ? 'refused' : 'down';
}

function keyOf({ origin, repository, reference }: ManifestPlace): string {
  return `${origin}/${repository}@${reference}`;
}
