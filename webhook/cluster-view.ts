import type { Doubt } from './doubt.ts';
import type { FallbackNode } from './fallback-node.ts';
import type { Operation } from './pod-patch.ts';
import type { Subject } from './subject.ts';

/** A Pod that is there. */
export interface PodPlace {
  readonly namespace: string;
  readonly name: string;
  /** Of this very Pod, not of another by the same name. */
  readonly uid: string;
}

/** The cluster, as far as the webhook knows it and acts on it. */
export interface ClusterView {
  /** Whether everything is known that decisions are made by. */
  readonly isKnown: boolean;
  node(name: string): FallbackNode | undefined;
  nodeByHostname(hostname: string): FallbackNode | undefined;
  /** What nodes need that need rewriting: one for each need (`distinctNeeds`). */
  readonly needs: readonly FallbackNode[];
  /** Whether the agent is gone that said that the door of this node is open. Never rejects. */
  isDeserted(node: FallbackNode): Promise<boolean>;
  /** Whether this namespace says that its Pods are to be left alone. */
  optsOut(namespace: string): boolean;
  /** From memory, else from the API; `isFresh` asks the API. `undefined` when there is none. @throws Error of the API. */
  pod(place: PodPlace, left: AbortSignal, options?: { readonly isFresh: boolean }): Promise<unknown>;
  /** `changed`: the Pod is not as the patch has it; `late`: not begun in time. @throws Error of the API. */
  patch(
    place: PodPlace,
    patch: readonly Operation[],
    left: AbortSignal,
  ): Promise<'patched' | 'changed' | 'gone' | 'late'>;
  /** Says there why an image keeps its name. Never rejects. */
  tell(subject: Subject, doubt: Doubt): void;
}
