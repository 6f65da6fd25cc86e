import type { Logger } from 'pino';
import * as z from 'zod';
import { NODES } from '../config/config.ts';
import { MANIFEST_TYPES } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { digestSchema } from '../oci/digest-schema.ts';
import { parseJson } from '../oci/json.ts';
import type { BlobCache } from './blob-cache.ts';
import type { ManifestCache } from './manifest-cache.ts';
import { nameOf, type Target } from './target.ts';
import type { Manifest } from './upstream.ts';

/** Images that wait; more are not warmed up, since pulls have already overtaken them. */
const MAX_WAITING = 100;

/** Entries of one index or manifest; real ones have a few dozen. */
const MAX_ENTRIES = 1_000;

const descriptorSchema = z.object({ digest: digestSchema });
const platformSchema = z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() });
const childSchema = descriptorSchema.extend({ platform: platformSchema });
const indexSchema = z.object({ manifests: z.array(z.unknown()).max(MAX_ENTRIES) });
const imageSchema = z.object({ config: z.unknown(), layers: z.array(z.unknown()).max(MAX_ENTRIES) });

export interface WarmerOptions {
  readonly manifests: ManifestCache;
  readonly blobs: BlobCache;
  /** The platforms that the cluster's nodes have. */
  readonly nodes: () => readonly string[];
  readonly log: Logger;
}

/**
 * Fetches what nodes of other platforms will ask for once an index was pulled. One image at a time, behind the
 * pulls that somebody waits for; what fails is fetched when it is pulled.
 */
export class Warmer {
  readonly #manifests: ManifestCache;
  readonly #blobs: BlobCache;
  readonly #nodes: () => readonly string[];
  readonly #log: Logger;
  readonly #waiting: (() => Promise<void>)[] = [];
  #running: Promise<void> | undefined;

  constructor({ manifests, blobs, nodes, log }: WarmerOptions) {
    this.#manifests = manifests;
    this.#blobs = blobs;
    this.#nodes = nodes;
    this.#log = log;
  }

  /** Takes note of a manifest that was fetched; of an index, the configured platforms are fetched. */
  warm(target: Target, { bytes }: Manifest): void {
    const warm = target.upstream.warm.flatMap((one) => (one === NODES ? this.#nodes() : [one]));
    if (warm.length === 0) return;
    const { manifests } = indexSchema.safeParse(parseJson(bytes.toString('utf8'))).data ?? { manifests: [] };
    for (const entry of manifests) {
      // Entry by entry: what is no image for a platform is passed over.
      const child = childSchema.safeParse(entry).data;
      if (child === undefined || this.#waiting.length >= MAX_WAITING) continue;
      const { os, architecture, variant } = child.platform;
      if (warm.includes(`${os}/${architecture}`) || warm.includes(`${os}/${architecture}/${variant ?? ''}`))
        this.#waiting.push(() => this.#fetch(target, child.digest));
    }
    if (this.#waiting.length > 0) this.#running ??= this.#run().finally(() => (this.#running = undefined));
  }

  /** Forgets what waits; resolves when nothing runs. */
  async close(): Promise<void> {
    this.#waiting.length = 0;
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) await next();
  }

  async #fetch(target: Target, digest: Digest): Promise<void> {
    try {
      const { manifest } = await this.#manifests.byDigest(target, digest, MANIFEST_TYPES.join(', '));
      const image = imageSchema.safeParse(parseJson(manifest.bytes.toString('utf8'))).data;
      if (image === undefined) throw new Error('it is no manifest of an image');
      for (const entry of [image.config, ...image.layers]) {
        const blob = descriptorSchema.safeParse(entry).data;
        if (blob !== undefined) await this.#blobs.fetch(target, blob.digest);
      }
    } catch (error) {
      this.#log.warn({ err: error, repository: nameOf(target), digest }, 'a platform was not warmed up');
    }
  }
}
