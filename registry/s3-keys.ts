import * as z from 'zod';
import { algorithmOf, type Digest, hexOf, parseDigest } from '../oci/digest.ts';
import { parseJson } from '../oci/json.ts';
import type { RepositoryKey } from './store.ts';

const LAYOUT = { layout: 'weir-s3-store', version: 1 } as const;

const layoutSchema = z.object({ layout: z.literal(LAYOUT.layout), version: z.literal(LAYOUT.version) });
/** The text of the marker object. */
export const LAYOUT_MARKER = `${JSON.stringify(LAYOUT)}\n`;

/** Whether a marker's text is of the layout that this release reads and writes. */
export function isOurLayout(text: string): boolean {
  return layoutSchema.safeParse(parseJson(text)).success;
}

/**
 * The names of our objects, all below one prefix: see docs/s3-layout.md. Hosts, repositories, tags and digests
 * were checked by their parsers; no component of a repository begins with `_`.
 */
export class S3Keys {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  get marker(): string {
    return `${this.#prefix}weir-store.json`;
  }

  /** Begins the key of every blob. */
  get blobs(): string {
    return `${this.#prefix}blobs/`;
  }

  blob(digest: Digest): string {
    const hex = hexOf(digest);
    return `${this.blobs}${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}`;
  }

  /** The digest of a blob's key; `undefined` when the key is no blob's. */
  digestOf(key: string): Digest | undefined {
    const [, algorithm, directory, hex] = key.startsWith(this.blobs)
      ? ['', ...key.slice(this.blobs.length).split('/')]
      : [];
    const digest = parseDigest(`${algorithm}:${hex}`);
    return hex?.slice(0, 2) === directory ? digest : undefined;
  }

  link(key: RepositoryKey, digest: Digest): string {
    return `${this.#repository(key)}/_links/${algorithmOf(digest)}/${hexOf(digest)}`;
  }

  tag(key: RepositoryKey, tag: string): string {
    return `${this.#repository(key)}/_tags/${tag}`;
  }

  referrers(key: RepositoryKey, subject: Digest): string {
    return `${this.#repository(key)}/_referrers/${algorithmOf(subject)}/${hexOf(subject)}`;
  }

  #repository({ host, repository }: RepositoryKey): string {
    return `${this.#prefix}repositories/${host}/${repository}`;
  }
}
