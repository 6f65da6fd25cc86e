import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { parseJson } from '../oci/json.ts';
import { apiProblem, type Kubernetes } from './client.ts';

/** `kubectl get nodes -L weir.dev/mirror` */
export const MIRROR_LABEL = 'weir.dev/mirror';
/** First 12 hex digits of the SHA-256 of the configuration in force on the node. */
export const CONFIG_ANNOTATION = 'weir.dev/config';
/** Why the label does not say `configured`. */
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
}

const MAX_REASON = 1_000;
const RETRY_MS = 5_000;

/** Writes what became of a node into its labels and annotations; the latest report wins, and is written until it is in. */
export class NodeReporter {
  readonly #kubernetes: Kubernetes;
  readonly #node: string;
  readonly #log: Logger;
  #wanted: string | undefined;
  #written: string | undefined;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(kubernetes: Kubernetes, node: string, log: Logger) {
    this.#kubernetes = kubernetes;
    this.#node = node;
    this.#log = log;
  }

  report({ mirror, configHash, reason }: NodeReport): void {
    this.#wanted = patch(mirror, configHash.slice(0, 12), reason?.slice(0, MAX_REASON) ?? null);
    this.#write();
  }

  /** Takes label and annotations away. @throws Error when the API server does not do so. */
  async withdraw(): Promise<void> {
    await this.close();
    await this.#patch(patch(null, null, null));
  }

  /** Stops writing. */
  async close(): Promise<void> {
    this.#wanted = undefined;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #write(): void {
    this.#running ??= this.#writeWanted().finally(() => {
      this.#running = undefined;
    });
  }

  async #writeWanted(): Promise<void> {
    clearTimeout(this.#timer);
    while (this.#wanted !== undefined && this.#wanted !== this.#written) {
      const body = this.#wanted;
      try {
        await this.#patch(body);
        this.#written = body;
      } catch (error) {
        this.#log.warn({ err: error }, 'the node is told of again later');
        this.#timer = setTimeout(() => this.#write(), RETRY_MS * (0.5 + Math.random()));
        return;
      }
    }
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

function patch(mirror: NodeMirror | null, config: string | null, reason: string | null): string {
  return JSON.stringify({
    metadata: {
      labels: { [MIRROR_LABEL]: mirror },
      annotations: { [CONFIG_ANNOTATION]: config, [REASON_ANNOTATION]: reason },
    },
  });
}
