// What the upstreams hold, as files: who pushes writes them, and the upstream's process reads them when it is
// asked. For each registry, below its name:
//
//	REPOSITORY/_tags/TAG             the digest
//	REPOSITORY/_manifests/DIGEST     the manifest
//	REPOSITORY/_blobs/DIGEST         the blob

import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { codeOf } from '../../process/file-problem.ts';

export interface HeldFile {
  readonly path: string;
  readonly size: number;
  readonly digest: string;
}

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const TAG = /^\w[\w.-]{0,127}$/;
const REPOSITORY = /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$/;
const manifestSchema = z.looseObject({ mediaType: z.string() });

export class UpstreamStore {
  readonly #root: string;

  /** `root`: the directory of one registry. */
  constructor(root: string) {
    this.#root = root;
  }

  async putBlob(repository: string, digest: string, bytes: Buffer): Promise<void> {
    await put(this.#path(repository, '_blobs', digest), bytes);
  }

  async putManifest(repository: string, digest: string, bytes: Buffer): Promise<void> {
    await put(this.#path(repository, '_manifests', digest), bytes);
  }

  async tag(repository: string, tag: string, digest: string): Promise<void> {
    await put(this.#path(repository, '_tags', tag), Buffer.from(digest));
  }

  async removeTag(repository: string, tag: string): Promise<void> {
    await rm(this.#path(repository, '_tags', tag));
  }

  async blob(repository: string, digest: string): Promise<HeldFile | undefined> {
    if (!REPOSITORY.test(repository) || !DIGEST.test(digest)) return undefined;
    return held(this.#path(repository, '_blobs', digest), digest);
  }

  /** By digest or by tag. */
  async manifest(repository: string, reference: string): Promise<HeldFile | undefined> {
    if (!REPOSITORY.test(repository)) return undefined;
    const digest = DIGEST.test(reference) ? reference : await this.#digestOf(repository, reference);
    return digest === undefined ? undefined : held(this.#path(repository, '_manifests', digest), digest);
  }

  async #digestOf(repository: string, tag: string): Promise<string | undefined> {
    if (!TAG.test(tag)) return undefined;
    return readFile(this.#path(repository, '_tags', tag), 'utf8').catch(unlessMissing);
  }

  #path(repository: string, kind: '_tags' | '_manifests' | '_blobs', name: string): string {
    return join(this.#root, repository, kind, name);
  }
}

export async function mediaTypeOf(manifest: HeldFile): Promise<string> {
  return manifestSchema.parse(JSON.parse(await readFile(manifest.path, 'utf8'))).mediaType;
}

async function put(path: string, bytes: Buffer): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}

async function held(path: string, digest: string): Promise<HeldFile | undefined> {
  const status = await stat(path).catch(unlessMissing);
  return status && { path, size: status.size, digest };
}

function unlessMissing(error: unknown): undefined {
  if (codeOf(error) !== 'ENOENT') throw error;
}
