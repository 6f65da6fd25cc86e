import * as z from 'zod';
import type { Config } from '../config/config.ts';
import { describe } from '../process/lifecycle.ts';
import type { Logger } from '../process/log.ts';
import type { AdmissionRequest, Answer } from './admission-review.ts';
import type { ClusterView } from './cluster-view.ts';
import type { DecisionCounter } from './decision-counter.ts';
import { derivedNode } from './derived-node.ts';
import { doubtOf, tellDoubt } from './doubt.ts';
import { type Exemption, exemptionOf } from './exemption.ts';
import type { FallbackNode } from './fallback-node.ts';
import { decideImage } from './image-decision.ts';
import type { KnownNames } from './known-names.ts';
import type { ManifestProbe } from './manifest-probe.ts';
import { addedImages, imagesOf, type Pod, type PodImage, podSchema } from './pod.ts';
import { podPatch } from './pod-patch.ts';
import type { RegistryPlace } from './rewrite.ts';
import { type Outcome, type Settlement, settle } from './settlement.ts';
import { Verdict } from './verdict.ts';
import { warm } from './warming.ts';

export interface AdmissionOptions {
  readonly config: () => Config;
  readonly registry: () => RegistryPlace;
  readonly names: KnownNames;
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

/** Images that may get other names, and all that this depends on. */
interface Question {
  readonly pod: Pod;
  readonly namespace: string;
  readonly images: readonly PodImage[];
  readonly node: FallbackNode | 'any' | 'mirrored';
  /** Whether the Pod is there already. */
  readonly isMade: boolean;
}

/** Answers what API servers ask about Pods: always that they may be, sometimes with other names for their images. */
export class Admission {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** The answer to an AdmissionReview. Never rejects, never refuses, and takes no longer than the budget. */
  async answer(request: AdmissionRequest): Promise<Answer> {
    const { budgetMs = BUDGET_MS } = this.#options;
    const late = Promise.withResolvers<Answer>();
    const over = new AbortController();
    const verdict = new Verdict(request, over.signal, this.#options);
    const timer = setTimeout(() => {
      verdict.leave('deadline');
      over.abort();
      late.resolve({});
    }, budgetMs);
    try {
      return await Promise.race([this.#tryToDecide(request, verdict), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Never rejects, also once nobody waits for it any more. */
  async #tryToDecide(request: AdmissionRequest, verdict: Verdict): Promise<Answer> {
    try {
      return await this.#decide(request, verdict);
    } catch (error) {
      const { namespace, name, operation } = request;
      this.#options.log.warn({ err: error, namespace, pod: name, operation }, 'a Pod passes as it is');
      verdict.leave('failed', describe(error));
      return {};
    }
  }

  async #decide(request: AdmissionRequest, verdict: Verdict): Promise<Answer> {
    const { resource, subResource, operation } = request;
    if (!this.#options.cluster.isKnown) {
      verdict.leave('starting');
      return {};
    }
    if (resource.resource !== 'pods') return {};
    if (operation === 'CREATE' && !subResource) return this.#create(request, verdict);
    if (operation === 'CREATE' && subResource === 'binding') return this.#bind(request, verdict);
    if (operation === 'UPDATE' && subResource === 'ephemeralcontainers') return this.#debug(request, verdict);
    return {};
  }

  /** A Pod that is being made: rewritten at once where it is known to which node it goes, or where every Pod is. */
  async #create(request: AdmissionRequest, verdict: Verdict): Promise<Answer> {
    const pod = podSchema.parse(request.object);
    const namespace = request.namespace ?? pod.metadata.namespace ?? '';
    const images = imagesOf(pod);
    const node = this.#whereTo(pod);
    if (node === undefined) {
      const { config, registry, cluster, probe } = this.#options;
      if (derivedNode(pod).kind === 'unknown' && this.#exemption(pod, namespace) === undefined)
        warm(images, { config: config(), registry: registry(), needs: cluster.needs, probe });
      return {};
    }
    const settlement = await this.#settle({ pod, namespace, images, node, isMade: false }, verdict);
    if (settlement === undefined) return {};
    const { changes, originals, outcomes } = settlement;
    verdict.settle(outcomes);
    return {
      patch: changes.length === 0 ? [] : podPatch(pod, changes, originals),
      warnings: warningsOf(outcomes),
    };
  }

  /** A Pod that is put on a node: patched before the answer, so that the kubelet never sees it otherwise. */
  async #bind(request: AdmissionRequest, verdict: Verdict): Promise<Answer> {
    const { config, cluster } = this.#options;
    const { metadata, target } = bindingSchema.parse(request.object);
    if (config().fallback !== 'auto' || (target.kind ?? 'Node') !== 'Node') return {};
    const namespace = request.namespace ?? metadata.namespace ?? '';
    const place = { namespace, name: metadata.name, uid: metadata.uid ?? '' };
    const node = cluster.node(target.name) ?? 'mirrored';
    for (let attempt = 1; attempt <= ATTEMPTS && !verdict.over.aborted; attempt++) {
      const found = await cluster.pod(place, verdict.over, { isFresh: attempt > 1 });
      const pod = found === undefined ? undefined : podSchema.parse(found);
      const uid = pod?.metadata.uid ?? '';
      if (pod === undefined || (place.uid !== '' && uid !== place.uid)) {
        // Its binding fails, so that there is nothing to tell, and nobody to tell it.
        verdict.leave('gone');
        break;
      }
      verdict.identify(uid);
      const question: Question = { pod, namespace, images: imagesOf(pod), node, isMade: true };
      const settlement = await this.#settle(question, verdict);
      if (settlement === undefined) {
        this.#tellOwner(question, verdict);
        break;
      }
      const { changes, originals, outcomes } = settlement;
      if (changes.length > 0 && request.dryRun !== true) {
        const patch = podPatch(pod, changes, originals, { isUnbound: true });
        const result = await cluster.patch({ ...place, uid }, patch, verdict.over);
        if (result === 'changed' && attempt < ATTEMPTS && !verdict.over.aborted) continue;
        if (result !== 'patched') {
          verdict.leave(result);
          break;
        }
      }
      verdict.settle(outcomes);
      break;
    }
    return {};
  }

  /** Containers that are added to a Pod that runs; the others are not touched. */
  async #debug(request: AdmissionRequest, verdict: Verdict): Promise<Answer> {
    const pod = podSchema.parse(request.object);
    const before = podSchema.parse(request.oldObject);
    const namespace = request.namespace ?? pod.metadata.namespace ?? '';
    const node = this.#whereTo(pod);
    if (node === undefined) return {};
    const images = addedImages(pod, before);
    const settlement = await this.#settle({ pod, namespace, images, node, isMade: true }, verdict);
    if (settlement === undefined) return {};
    const { changes, outcomes } = settlement;
    verdict.settle(outcomes);
    return {
      // This part of the API takes no annotations.
      patch: changes.length === 0 ? [] : podPatch(pod, changes, undefined),
      warnings: warningsOf(outcomes),
    };
  }

  /** `undefined` when the Pod is none of ours. */
  async #settle(question: Question, verdict: Verdict): Promise<Settlement | undefined> {
    const { config, registry, names, probe, cluster } = this.#options;
    const exemption = this.#exemption(question.pod, question.namespace);
    if (exemption === undefined)
      return settle({ ...question, config: config(), registry: registry(), names, probe, cluster });
    verdict.exempt(exemption);
    return undefined;
  }

  #exemption(pod: Pod, namespace: string): Exemption | undefined {
    const { config, ownNamespace, cluster } = this.#options;
    const namespaceOptsOut = cluster.optsOut(namespace);
    return exemptionOf(pod, { config: config(), namespace, ownNamespace, namespaceOptsOut });
  }

  /** Whoever has its Pods left alone may not know that they need the mirror. */
  #tellOwner({ pod, namespace, images, node }: Question, verdict: Verdict): void {
    const { config, registry } = this.#options;
    if (typeof node === 'string' || this.#exemption(pod, namespace) !== 'owner') return;
    const around = { config: config(), registry: registry(), node, isMade: true };
    for (const image of images)
      if (decideImage(image, around).kind === 'ask') verdict.tell({ image: image.image, why: 'owner' });
  }

  /** `undefined` when this Pod needs nothing, or that is not known yet. */
  #whereTo(pod: Pod): FallbackNode | 'any' | undefined {
    return this.#nodeOf(pod) ?? (this.#options.config().fallback === 'always' ? 'any' : undefined);
  }

  /** The node that needs rewriting to which this Pod goes, as far as it is known. */
  #nodeOf(pod: Pod): FallbackNode | undefined {
    const { cluster } = this.#options;
    const node = derivedNode(pod);
    if (node.kind === 'name') return cluster.node(node.name);
    return node.kind === 'hostname' ? cluster.nodeByHostname(node.hostname) : undefined;
  }
}

function warningsOf(outcomes: readonly Outcome[]): readonly string[] {
  return outcomes.flatMap((outcome) => doubtOf(outcome) ?? []).map(tellDoubt);
}
