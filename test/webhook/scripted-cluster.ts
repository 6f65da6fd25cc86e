// A cluster of which a test says everything, and which remembers what the webhook did to it.

import type { ClusterView, PodPlace } from '../../webhook/cluster-view.ts';
import type { Doubt } from '../../webhook/doubt.ts';
import { distinctNeeds, type FallbackNode, fallbackNode } from '../../webhook/fallback-node.ts';
import type { Operation } from '../../webhook/pod-patch.ts';
import type { Subject } from '../../webhook/subject.ts';
import { applyPatch } from './json-patch.ts';

export class ScriptedCluster implements ClusterView {
  isKnown = true;
  readonly told: (Doubt & { readonly pod?: string; readonly owner?: string })[] = [];
  readonly patches: (readonly Operation[])[] = [];
  readonly optedOut = new Set<string>();
  /** Nodes whose agent was killed. */
  readonly deserted = new Set<string>();
  /** What the API has, by name. */
  readonly pods = new Map<string, object>();
  /** What is remembered of it. */
  readonly remembered = new Map<string, object>();
  /** Is done before a patch. */
  meanwhile: () => unknown = () => undefined;
  /** Of the API. */
  reads = 0;
  readonly #nodes = new Map<string, FallbackNode>();

  /** A node with these states of upstreams; none: one without an agent. */
  addNode(
    name: string,
    states: Readonly<Record<string, string>> | undefined,
    {
      runtime = 'containerd',
      images = [],
      door = 'open',
    }: { runtime?: string; images?: readonly string[]; door?: string } = {},
  ): void {
    const node = fallbackNode({
      name,
      labels: {
        'kubernetes.io/hostname': `${name}.host`,
        ...(states === undefined ? {} : { 'weir.dev/mirror': 'fallback' }),
      },
      annotations:
        states === undefined ? {} : { 'weir.dev/upstreams': JSON.stringify(states), 'weir.dev/door': door },
      runtimeVersion: `${runtime}://1`,
      address: '',
      imageNames: images,
    });
    if (node !== undefined) this.#nodes.set(name, node);
  }

  get needs(): readonly FallbackNode[] {
    return distinctNeeds(this.#nodes.values());
  }

  node(name: string): FallbackNode | undefined {
    return this.#nodes.get(name);
  }

  nodeByHostname(hostname: string): FallbackNode | undefined {
    return this.#nodes.values().find((node) => node.hostname === hostname);
  }

  optsOut(namespace: string): boolean {
    return this.optedOut.has(namespace);
  }

  async isDeserted({ name }: FallbackNode): Promise<boolean> {
    return this.deserted.has(name);
  }

  async pod({ name }: PodPlace, _: AbortSignal, options?: { readonly isFresh: boolean }): Promise<unknown> {
    const known = options?.isFresh === true ? undefined : this.remembered.get(name);
    if (known === undefined) this.reads += 1;
    return known ?? this.pods.get(name);
  }

  async patch({ name }: PodPlace, patch: readonly Operation[]): Promise<'patched' | 'changed' | 'gone'> {
    await this.meanwhile();
    const pod = this.pods.get(name);
    if (pod === undefined) return 'gone';
    const patched = applyPatch(pod, patch);
    if (patched === undefined) return 'changed';
    this.patches.push(patch);
    this.pods.set(name, patched);
    return 'patched';
  }

  tell({ kind, name }: Subject, doubt: Doubt): void {
    this.told.push({ ...doubt, [kind === 'Pod' ? 'pod' : 'owner']: name });
  }
}
