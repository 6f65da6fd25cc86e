import * as z from 'zod';
import type { Config } from '../config/config.ts';
import type { Logger } from '../process/log.ts';
import type { AdmissionRequest, Answer } from './admission-review.ts';
import type { ClusterView, PodPlace } from './cluster-view.ts';
import type { DecisionCounter } from './decision-counter.ts';
import { derivedNode } from './derived-node.ts';
import { type Doubt, doubtOf, tellDoubt } from './doubt.ts';
import { exemptionOf } from './exemption.ts';
import type { FallbackNode } from './fallback-node.ts';
import { decideImage } from './image-decision.ts';
import type { ManifestProbe } from './manifest-probe.ts';
import { addedImages, imagesOf, type Pod, type PodImage, podSchema } from './pod.ts';
import { podPatch } from './pod-patch.ts';
import type { RegistryPlace } from './rewrite.ts';
import { type Outcome, type Settlement, settle } from './settlement.ts';

export interface AdmissionOptions {
  readonly config: () => Config;
  readonly registry: () => RegistryPlace;
  readonly ownNamespace: string;
  readonly cluster: ClusterView;
  readonly probe: Pick<ManifestProbe, 'look' | 'warm'>;
  readonly counter: DecisionCounter;
  readonly log: Logger;
  /** Milliseconds for all of an answer: less than an API server waits. */
  readonly budgetMs?: number;
}

const BUDGET_MS = 1_500;
/** A Pod that is not as it was seen is looked at once more. */
const ATTEMPTS = 2;

const bindingSchema = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string().nullish(), uid: z.string().nullish() }),
  target: z.object({ kind: z.string().nullish(), name: z.string() }),
});

/** Answers what API servers ask about Pods: always that they may be, sometimes with other names for their images. */
export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** The answer to an AdmissionReview. Never rejects, never refuses, and takes no longer than the budget. */
  async answer(request: AdmissionRequest): Promise<Answer> {
    const { counter, log, budgetMs = BUDGET_MS } = this.#options;
    const late = Promise.withResolvers<Answer>();
    const over = new AbortController();
    const timer = setTimeout(() => {
      over.abort();
      counter.count(request, 'left', 'deadline');
      late.resolve({});
    }, budgetMs);
    try {
      return await Promise.race([this.#decide(request, over.signal), late.promise]);
    } catch (error) {
      counter.count(request, 'left', 'failed');
      const { namespace, name, operation } = request;
      log.warn({ err: error, namespace, pod: name, operation }, 'a Pod passes as it is');
      return {};
    } finally {
      clearTimeout(timer);
    }
  }

  async #decide(request: AdmissionRequest, left: AbortSignal): Promise<Answer> {
    const { cluster, counter } = this.#options;
    const { resource, subResource, operation } = request;
    if (!cluster.isKnown) {
      counter.count(request, 'left', 'starting');
      return {};
    }
    if (resource.resource !== 'pods') return {};
    if (operation === 'CREATE' && !subResource) return this.#create(request);
    if (operation === 'CREATE' && subResource === 'binding') return this.#bind(request, left);
    if (operation === 'UPDATE' && subResource === 'ephemeralcontainers') return this.#debug(request);
    return {};
  }

  /** A Pod that is being made: rewritten at once where it is known to which node it goes, or where every Pod is. */
  async #create(request: AdmissionRequest): Promise<Answer> {
    const { config, counter } = this.#options;
    const pod = podSchema.parse(request.object);
    const namespace = request.namespace ?? pod.metadata.namespace ?? '';
    const images = imagesOf(pod);
    const node = config().fallback === 'always' ? 'any' : this.#nodeOf(pod);
    if (node === undefined) {
      if (derivedNode(pod).kind === 'unknown' && this.#exemption(pod, namespace) === undefined)
        this.#warm(images);
      return {};
    }
    const settlement = await this.#settle(request, pod, namespace, images, node, false);
    if (settlement === undefined) return {};
    const { changes, originals, outcomes } = settlement;
    counter.countAll(request, outcomes);
    return {
      patch: changes.length === 0 ? [] : podPatch(pod, changes, originals),
      warnings: doubtsOf(outcomes).map(tellDoubt),
    };
  }

  /** A Pod that is put on a node: patched before the answer, so that the kubelet never sees it otherwise. */
  async #bind(request: AdmissionRequest, left: AbortSignal): Promise<Answer> {
    const { config, cluster, counter } = this.#options;
    const { metadata, target } = bindingSchema.parse(request.object);
    if (config().fallback !== 'auto' || (target.kind ?? 'Node') !== 'Node') return {};
    const namespace = request.namespace ?? metadata.namespace ?? '';
    const place = { namespace, name: metadata.name, uid: metadata.uid ?? '' };
    const node = cluster.node(target.name) ?? 'mirrored';
    for (let attempt = 1; attempt <= ATTEMPTS && !left.aborted; attempt++) {
      const found = await cluster.pod(place, left, { isFresh: attempt > 1 });
      const pod = podSchema.safeParse(found).data;
      if (pod === undefined || (place.uid !== '' && pod.metadata.uid !== place.uid)) break;
      const settlement = await this.#settle(request, pod, namespace, imagesOf(pod), node, true);
      if (settlement === undefined) {
        if (request.dryRun !== true) this.#tellOwner(place, pod, namespace, node);
        break;
      }
      const { changes, originals, outcomes } = settlement;
      const known = { ...place, uid: pod.metadata.uid ?? '' };
      if (changes.length > 0 && request.dryRun !== true) {
        const patch = podPatch(pod, changes, originals, { isUnbound: true });
        const result = await cluster.patch(known, patch, left);
        if (result === 'changed' && attempt < ATTEMPTS) continue;
        if (result !== 'patched') {
          counter.count(request, 'left', result);
          break;
        }
      }
      counter.countAll(request, outcomes);
      if (request.dryRun !== true) for (const doubt of doubtsOf(outcomes)) cluster.tell(known, doubt);
      break;
    }
    return {};
  }

  /** Containers that are added to a Pod that runs; the others are not touched. */
  async #debug(request: AdmissionRequest): Promise<Answer> {
    const { config, counter } = this.#options;
    const pod = podSchema.parse(request.object);
    const before = podSchema.parse(request.oldObject);
    const namespace = request.namespace ?? pod.metadata.namespace ?? '';
    const node = config().fallback === 'always' ? 'any' : this.#nodeOf(pod);
    if (node === undefined) return {};
    const images = addedImages(pod, before);
    const settlement = await this.#settle(request, pod, namespace, images, node, true);
    if (settlement === undefined) return {};
    counter.countAll(request, settlement.outcomes);
    return {
      // This part of the API takes no annotations.
      patch: settlement.changes.length === 0 ? [] : podPatch(pod, settlement.changes, undefined),
      warnings: doubtsOf(settlement.outcomes).map(tellDoubt),
    };
  }

  /** `undefined` when the Pod is none of ours. */
  async #settle(
    request: AdmissionRequest,
    pod: Pod,
    namespace: string,
    images: readonly PodImage[],
    node: FallbackNode | 'any' | 'mirrored',
    isMade: boolean,
  ): Promise<Settlement | undefined> {
    const { config, registry, probe, counter } = this.#options;
    const exemption = this.#exemption(pod, namespace);
    if (exemption === undefined)
      return settle({ pod, images, node, isMade, config: config(), registry: registry(), probe });
    counter.count(request, 'left', exemption);
    return undefined;
  }

  #exemption(pod: Pod, namespace: string): ReturnType<typeof exemptionOf> {
    const { config, ownNamespace, cluster } = this.#options;
    const namespaceOptsOut = cluster.optsOut(namespace);
    return exemptionOf(pod, { config: config(), namespace, ownNamespace, namespaceOptsOut });
  }

  /** Whoever has its Pods left alone may not know that they need the mirror. */
  #tellOwner(place: PodPlace, pod: Pod, namespace: string, node: FallbackNode | 'mirrored'): void {
    const { config, registry, cluster } = this.#options;
    if (node === 'mirrored' || this.#exemption(pod, namespace) !== 'owner') return;
    const around = { config: config(), registry: registry(), node, isMade: true };
    for (const image of imagesOf(pod))
      if (decideImage(image, around).kind === 'ask')
        cluster.tell(place, { image: image.image, why: 'owner' });
  }

  /** The node that needs rewriting to which this Pod goes, as far as it is known. */
  #nodeOf(pod: Pod): FallbackNode | undefined {
    const { cluster } = this.#options;
    const node = derivedNode(pod);
    if (node.kind === 'name') return cluster.node(node.name);
    return node.kind === 'hostname' ? cluster.nodeByHostname(node.hostname) : undefined;
  }

  /** Has the mirror asked for what will be wanted if the Pod comes to one of the nodes that need rewriting. */
  #warm(images: readonly PodImage[]): void {
    const { config, registry, cluster, probe } = this.#options;
    const around = { config: config(), registry: registry(), isMade: false };
    for (const image of images)
      for (const node of cluster.nodes) {
        const decision = decideImage(image, { ...around, node });
        if (decision.kind !== 'ask') continue;
        probe.warm(decision.rewrite.manifest);
        break;
      }
  }
}

function doubtsOf(outcomes: readonly Outcome[]): readonly Doubt[] {
  return outcomes.flatMap((outcome) => doubtOf(outcome) ?? []);
}
