import { setTimeout as pause } from 'node:timers/promises';
import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { parseJson } from '../oci/json.ts';
import { Latest } from '../process/latest.ts';
import { apiProblem, type Kubernetes } from './client.ts';

/** `kubectl get nodes -L weir.dev/mirror` */
export const MIRROR_LABEL = 'weir.dev/mirror';
/** First 12 hex digits of the SHA-256 of the configuration in force on the node. */
export const CONFIG_ANNOTATION = 'weir.dev/config';
/** Whether the runtime was seen to obey: `proven`, `bypassed` or `unproven`. */
export const PROOF_ANNOTATION = 'weir.dev/proof';
/** Why the label does not say `configured`, or the proof not `proven`. */
export const REASON_ANNOTATION = 'weir.dev/mirror-reason';

/**
 * - `configured`: pulls of every configured upstream go as the configuration says;
 * - `fallback`: some do not, and the reason says which;
 * - `off`: the configuration says `enabled: false`.
 */
export type NodeMirror = 'configured' | 'fallback' | 'off';

export interface NodeReport {
  readonly mirror: NodeMirror;
  /** SHA-256 of the configuration in force, in hex. */
  readonly configHash: string;
  readonly reason?: string;
  readonly proof?: string;
}

const MAX_REASON = 1_000;
/** Somebody may take the label away, or make the node anew; so it is written again although nothing changed. */
const AGAIN_MS = 300_000;
const LAST_ATTEMPTS = 3;
const LAST_PAUSE_MS = 1_000;

/** Writes what became of a node into its labels and annotations; the latest report wins, and is written until it is in. */
export class NodeReporter {
  readonly #kubernetes: Kubernetes;
  readonly #node: string;
  readonly #log: Logger;
  readonly #latest: Latest<string>;
  readonly #againMs: number;
  #written: string | undefined;
  #writtenAt = 0;

  constructor(kubernetes: Kubernetes, node: string, log: Logger, againMs = AGAIN_MS) {
    this.#kubernetes = kubernetes;
    this.#node = node;
    this.#log = log;
    this.#againMs = againMs;
    this.#latest = new Latest({
      act: (body) => this.#write(body),
      failed: (error) => log.warn({ err: error }, 'the node is told of again later'),
    });
  }

  report({ mirror, configHash, reason, proof }: NodeReport): void {
    const config = configHash.slice(0, 12);
    this.#latest.put(patch({ mirror, config, reason: shortened(reason), proof: proof ?? null }));
  }

  /**
   * The last word about the node: without a reason, label and annotations are taken away; with one they say why
   * weir could not leave it. Failing to say so is logged.
   */
  async conclude(reason?: string): Promise<void> {
    await this.close();
    const body =
      reason === undefined
        ? patch({ mirror: null, config: null, reason: null, proof: null })
        : patch({ mirror: 'fallback', reason: shortened(reason), proof: null });
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#patch(body);
        return;
      } catch (error) {
        this.#log.warn({ err: error }, 'the label of the node stays');
        if (attempt === LAST_ATTEMPTS) return;
      }
      await pause(LAST_PAUSE_MS * attempt);
    }
  }

  /** Stops writing. */
  async close(): Promise<void> {
    await this.#latest.close();
  }

  async #write(body: string): Promise<void> {
    if (body === this.#written && performance.now() - this.#writtenAt < this.#againMs) return;
    // What the node says after an attempt that failed is not known.
    this.#written = undefined;
    await this.#patch(body);
    this.#written = body;
    this.#writtenAt = performance.now();
  }

  async #patch(body: string): Promise<void> {
    try {
      await this.#kubernetes.core.patchNode(
        { name: this.#node, body: parseJson(body) },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      );
    } catch (error) {
      throw apiProblem(`label node ${this.#node}`, error);
    }
  }
}

function shortened(reason: string | undefined): string | null {
  return reason?.slice(0, MAX_REASON) ?? null;
}

/** `null` takes away, what is missing stays as it is. */
function patch(of: {
  readonly mirror: NodeMirror | null;
  readonly config?: string | null;
  readonly reason: string | null;
  readonly proof: string | null;
}): string {
  const { mirror, config, reason, proof } = of;
  const annotations = {
    [CONFIG_ANNOTATION]: config,
    [REASON_ANNOTATION]: reason,
    [PROOF_ANNOTATION]: proof,
  };
  return JSON.stringify({ metadata: { labels: { [MIRROR_LABEL]: mirror }, annotations } });
}
