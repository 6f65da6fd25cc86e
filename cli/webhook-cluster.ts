import type { Logger } from 'pino';
import type { Config } from '../config/config.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import { type NodeFacts, watchNodes } from '../kubernetes/node-index.ts';
import { PodEvents } from '../kubernetes/pod-events.ts';
import { PodGate } from '../kubernetes/pod-gate.ts';
import { patchPod, readPod, WaitingPods } from '../kubernetes/pod-index.ts';
import { watchAnnotatedNamespaces } from '../kubernetes/webhook-namespaces.ts';
import { Histogram, type Registry as Metrics } from '../process/metrics.ts';
import { AgentProbe } from '../webhook/agent-probe.ts';
import type { ClusterView, PodPlace } from '../webhook/cluster-view.ts';
import { ANSWER_BUCKETS } from '../webhook/decision-counter.ts';
import { type Doubt, tellDoubt } from '../webhook/doubt.ts';
import { OPT_OUT_ANNOTATION } from '../webhook/exemption.ts';
import {
  distinctNeeds,
  type FallbackNode,
  fallbackNode,
  MIRROR_LABEL,
  needsRewriting,
} from '../webhook/fallback-node.ts';
import { type Pod, podToKeep } from '../webhook/pod.ts';
import type { Operation } from '../webhook/pod-patch.ts';
import type { Subject } from '../webhook/subject.ts';

const REPORTER = 'weir-webhook';
/** About Pods, at once. */
const MAX_REQUESTS = 16;
const REASON = 'ImageNotRewritten';

interface Options {
  readonly kubernetes: Kubernetes;
  /** Selects nodes without an agent's label that count as ones that cannot be configured; empty: none do. */
  readonly fallbackNodeSelector: string;
  /** Of every node, where its agent tells how it is. */
  readonly agentPort: number;
  /** Something is known anew by which the registration goes. */
  readonly changed: () => void;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** What the webhook knows of the cluster, all of it watched, and what it does there. */
export class WebhookCluster implements ClusterView {
  readonly #kubernetes: Kubernetes;
  readonly #events: PodEvents;
  readonly #agents: AgentProbe;
  readonly #pods: WaitingPods<Pod>;
  readonly #gate = new PodGate(MAX_REQUESTS);
  readonly #patchSeconds: Histogram;
  readonly #watches: readonly { close(): void }[];
  /** By the selector that selects them; `undefined` until they are known. */
  readonly #selected: (readonly FallbackNode[] | undefined)[];
  readonly #known = new WeakMap<NodeFacts, FallbackNode | undefined>();
  #nodes: ReadonlyMap<string, FallbackNode> = new Map();
  #byHostname: ReadonlyMap<string, FallbackNode> = new Map();
  #needs: readonly FallbackNode[] = [];
  #optedOut: ReadonlySet<string> | undefined;
  #arePodsKnown = false;

  constructor({ kubernetes, fallbackNodeSelector, agentPort, changed, metrics, log }: Options) {
    this.#kubernetes = kubernetes;
    this.#agents = new AgentProbe({ port: agentPort });
    this.#events = new PodEvents(kubernetes, { reporter: REPORTER, metrics, log });
    this.#patchSeconds = new Histogram({
      name: 'weir_webhook_patch_seconds',
      help: 'How long the API server took to patch a Pod, which is part of an answer.',
      buckets: ANSWER_BUCKETS,
      registers: [metrics],
    });
    const selectors = [
      `${MIRROR_LABEL}=fallback`,
      ...(fallbackNodeSelector === '' ? [] : [`${fallbackNodeSelector},!${MIRROR_LABEL}`]),
    ];
    this.#selected = selectors.map(() => undefined);
    const nodes = selectors.map((labelSelector, at) =>
      watchNodes({
        kubernetes,
        labelSelector,
        changed: (facts) => {
          this.#take(at, facts);
          changed();
        },
        log,
      }),
    );
    const namespaces = watchAnnotatedNamespaces({
      kubernetes,
      annotation: OPT_OUT_ANNOTATION,
      value: 'false',
      changed: (names) => {
        this.#optedOut = names;
      },
      log,
    });
    this.#pods = new WaitingPods<Pod>({
      kubernetes,
      keep: podToKeep,
      known: () => {
        this.#arePodsKnown = true;
      },
      log,
    });
    this.#watches = [...nodes, namespaces, this.#pods];
  }

  get isKnown(): boolean {
    return this.#optedOut !== undefined && this.#arePodsKnown && !this.#selected.includes(undefined);
  }

  get needs(): readonly FallbackNode[] {
    return this.#needs;
  }

  /** Whether there is a node on which an upstream of this configuration is not mirrored. */
  isNeeded({ upstreams }: Config): boolean {
    return this.#needs.some((node) => upstreams.keys().some((host) => needsRewriting(node, host)));
  }

  node(name: string): FallbackNode | undefined {
    return this.#nodes.get(name);
  }

  nodeByHostname(hostname: string): FallbackNode | undefined {
    return this.#byHostname.get(hostname);
  }

  async isDeserted({ address }: FallbackNode): Promise<boolean> {
    return address !== '' && (await this.#agents.look(address)) === 'gone';
  }

  optsOut(namespace: string): boolean {
    return this.#optedOut?.has(namespace) === true;
  }

  async pod(place: PodPlace, left: AbortSignal, { isFresh } = { isFresh: false }): Promise<unknown> {
    const known = isFresh ? undefined : this.#pods.find(place);
    if (known !== undefined && (place.uid === '' || known.metadata.uid === place.uid)) return known;
    return this.#gate.pass(left, () => readPod(this.#kubernetes, place));
  }

  async patch(
    place: PodPlace,
    patch: readonly Operation[],
    left: AbortSignal,
  ): Promise<'patched' | 'changed' | 'gone' | 'late'> {
    return (await this.#gate.pass(left, () => this.#patch(place, patch))) ?? 'late';
  }

  async #patch(place: PodPlace, patch: readonly Operation[]): ReturnType<typeof patchPod> {
    const end = this.#patchSeconds.startTimer();
    try {
      return await patchPod(this.#kubernetes, place, patch);
    } finally {
      end();
    }
  }

  tell(subject: Subject, doubt: Doubt): void {
    this.#events.warn({ subject, reason: REASON, message: tellDoubt(doubt) });
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
  }

  #take(at: number, facts: readonly NodeFacts[]): void {
    this.#selected[at] = facts.flatMap((one) => this.#nodeOf(one) ?? []);
    const nodes = this.#selected.flatMap((some) => some ?? []);
    this.#nodes = new Map(nodes.map((node) => [node.name, node]));
    this.#byHostname = new Map(nodes.map((node) => [node.hostname, node]));
    this.#needs = distinctNeeds(nodes);
  }

  #nodeOf(facts: NodeFacts): FallbackNode | undefined {
    if (!this.#known.has(facts)) this.#known.set(facts, fallbackNode(facts));
    return this.#known.get(facts);
  }
}
