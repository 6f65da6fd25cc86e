import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { CONFIG_ANNOTATION } from '../kubernetes/node-annotations.ts';
import type { NodesCluster } from './nodes-cluster.ts';

const LOOK_EVERY_MS = 100;

const event = z.object({
  object: z.object({
    metadata: z.object({
      name: z.string().optional(),
      annotations: z.record(z.string(), z.string()).optional(),
    }),
  }),
});

/** When each node said which configuration it has, as whoever watches the nodes hears of it. */
export class NodesReports {
  readonly #times = new Map<string, Map<string, number>>();
  readonly #abort = new AbortController();

  static async open(cluster: NodesCluster): Promise<NodesReports> {
    const reports = new NodesReports();
    const { signal } = reports.#abort;
    const response = await cluster.stream('/api/v1/nodes?watch=true', signal);
    response.once('error', () => undefined);
    createInterface({ input: response })
      .on('line', (line) => reports.#take(line))
      .on('error', () => undefined);
    once(response, 'close').catch(() => undefined);
    return reports;
  }

  /** When each of them said it, in milliseconds since 1970; resolves when so many did. */
  async all(hash: string, nodes: number): Promise<number[]> {
    const key = hash.slice(0, 12);
    while ((this.#times.get(key)?.size ?? 0) < nodes) await setTimeout(LOOK_EVERY_MS);
    return [...(this.#times.get(key)?.values() ?? [])];
  }

  close(): void {
    this.#abort.abort();
  }

  #take(line: string): void {
    const { metadata } = event.parse(JSON.parse(line)).object;
    const hash = metadata.annotations?.[CONFIG_ANNOTATION];
    if (hash === undefined || metadata.name === undefined) return;
    const nodes = this.#times.get(hash) ?? new Map<string, number>();
    this.#times.set(hash, nodes);
    if (!nodes.has(metadata.name)) nodes.set(metadata.name, Date.now());
  }
}
