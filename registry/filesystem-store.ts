import { randomUUID } from 'node:crypto';
import {
  constants,
  copyFile as copyWholeFile,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { algorithmOf, type Digest, hexOf, parseDigest } from '../oci/digest.ts';
import { parseJson } from '../oci/json.ts';
import { codeOf } from '../process/file-problem.ts';
import { copyFile } from './file-copy.ts';
import { parseLink, parseReferrersRecord, parseTag } from './records.ts';
import type { Link, ReferrersRecord, RepositoryKey, Store, StoredBlob, TagRecord } from './store.ts';

/** Marks a directory as a store. */
export const LAYOUT_FILE = 'weir-store.json';
const LAYOUT = { layout: 'weir-filesystem-store', version: 1 } as const;
const layoutSchema = z.object({ layout: z.literal(LAYOUT.layout), version: z.literal(LAYOUT.version) });
/** Whatever has not been written to for so long was left by a process that is gone. */
const ABANDONED_AFTER_MS = 3_600_000;

/**
 * The store in a directory: `blobs/<algorithm>/<two digits>/<hex>`, and for each repository
 * `repositories/<host>/<name>/_links/<algorithm>/<hex>` and `…/_tags/<tag>`, and `…/_referrers/<algorithm>/<hex>`. No component of a
 * repository name begins with `_`, so they never meet. Every file is complete from the moment at which it has its name.
 */
export class FilesystemStore implements Store {
  readonly #root: string;

  private constructor(root: string) {
    this.#root = root;
  }

  /** @throws Error when the directory cannot be written, or holds something else or a later layout. */
  static async open(root: string): Promise<FilesystemStore> {
    const store = new FilesystemStore(root);
    try {
      await mkdir(store.temporaryDirectory, { recursive: true });
      await store.#checkLayout();
      await store.#sweep();
    } catch (cause) {
      throw new Error(`cannot use ${root} as the store`, { cause });
    }
    return store;
  }

  /** For files on the way into the store: on its own file system, so that a link is enough to take them in. */
  get temporaryDirectory(): string {
    return join(this.#root, 'tmp');
  }

  async stat(digest: Digest): Promise<{ size: number } | undefined> {
    const found = await orAbsent(stat(this.#blobPath(digest)));
    return found === undefined ? undefined : { size: found.size };
  }

  async open(digest: Digest): Promise<StoredBlob | undefined> {
    const file = await orAbsent(open(this.#blobPath(digest)));
    if (file === undefined) return undefined;
    const { size } = await file.stat();
    const readable = (): Promise<number> => Promise.resolve(size);
    return {
      size,
      copyTo: (write, range, signal) => copyFile(file, range, write, readable, signal),
      close: () => file.close(),
    };
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    await this.#writeFile(this.#blobPath(digest), bytes);
  }

  async putFile(digest: Digest, path: string): Promise<void> {
    await syncFile(path);
    const target = this.#blobPath(digest);
    await mkdir(dirname(target), { recursive: true });
    try {
      await link(path, target);
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return;
      if (codeOf(error) !== 'EXDEV' && codeOf(error) !== 'EPERM') throw error;
      // Another file system, or one without hard links.
      const temporary = this.#temporaryPath();
      await copyWholeFile(path, temporary, constants.COPYFILE_EXCL);
      await syncFile(temporary);
      await rename(temporary, target);
    }
  }

  async link(key: RepositoryKey, digest: Digest): Promise<Link | undefined> {
    const path = join(this.#repositoryPath(key), '_links', algorithmOf(digest), hexOf(digest));
    return await this.#readRecord(path, parseLink);
  }

  async putLink(key: RepositoryKey, digest: Digest, record: Link): Promise<void> {
    const path = join(this.#repositoryPath(key), '_links', algorithmOf(digest), hexOf(digest));
    await this.#writeFile(path, JSON.stringify(record));
  }

  async tag(key: RepositoryKey, tag: string): Promise<TagRecord | undefined> {
    return await this.#readRecord(this.#tagPath(key, tag), parseTag);
  }

  async putTag(key: RepositoryKey, tag: string, record: TagRecord): Promise<void> {
    await this.#writeFile(this.#tagPath(key, tag), JSON.stringify(record));
  }

  async removeTag(key: RepositoryKey, tag: string): Promise<void> {
    await rm(this.#tagPath(key, tag), { force: true });
  }

  async remove(digest: Digest): Promise<void> {
    await rm(this.#blobPath(digest), { force: true });
  }

  async *digests(): AsyncIterable<Digest> {
    const root = join(this.#root, 'blobs');
    for (const algorithm of (await orAbsent(readdir(root))) ?? [])
      for (const directory of (await orAbsent(readdir(join(root, algorithm)))) ?? [])
        for (const hex of (await orAbsent(readdir(join(root, algorithm, directory)))) ?? []) {
          const digest = parseDigest(`${algorithm}:${hex}`);
          if (digest !== undefined) yield digest;
        }
  }

  async referrers(key: RepositoryKey, subject: Digest): Promise<ReferrersRecord | undefined> {
    return await this.#readRecord(this.#referrersPath(key, subject), parseReferrersRecord);
  }

  async putReferrers(key: RepositoryKey, subject: Digest, record: ReferrersRecord): Promise<void> {
    await this.#writeFile(this.#referrersPath(key, subject), JSON.stringify(record));
  }

  #referrersPath(key: RepositoryKey, subject: Digest): string {
    return join(this.#repositoryPath(key), '_referrers', algorithmOf(subject), hexOf(subject));
  }

  #blobPath(digest: Digest): string {
    const hex = hexOf(digest);
    return join(this.#root, 'blobs', algorithmOf(digest), hex.slice(0, 2), hex);
  }

  #repositoryPath({ host, repository }: RepositoryKey): string {
    return join(this.#root, 'repositories', host, repository);
  }

  #tagPath(key: RepositoryKey, tag: string): string {
    return join(this.#repositoryPath(key), '_tags', tag);
  }

  #temporaryPath(): string {
    return join(this.temporaryDirectory, randomUUID());
  }

  async #checkLayout(): Promise<void> {
    const path = join(this.#root, LAYOUT_FILE);
    const text = await orAbsent(readFile(path, 'utf8'));
    if (text === undefined) return await this.#writeFile(path, `${JSON.stringify(LAYOUT)}\n`);
    if (!layoutSchema.safeParse(parseJson(text)).success)
      throw new Error(`${path} is of another kind or a later version; give weir a directory of its own`);
  }

  /** Removes what processes that were killed have left. */
  async #sweep(): Promise<void> {
    const now = Date.now();
    for (const name of await readdir(this.temporaryDirectory)) {
      const path = join(this.temporaryDirectory, name);
      const found = await orAbsent(stat(path));
      if (found?.isFile() === true && now - found.mtimeMs > ABANDONED_AFTER_MS)
        await rm(path, { force: true });
    }
  }

  async #writeFile(path: string, content: string | Uint8Array): Promise<void> {
    const temporary = this.#temporaryPath();
    try {
      await using file = await open(temporary, 'wx');
      await file.writeFile(content);
      await file.datasync();
      await mkdir(dirname(path), { recursive: true });
      await rename(temporary, path);
    } catch (cause) {
      await rm(temporary, { force: true });
      throw new Error(`cannot write ${path}`, { cause });
    }
  }

  async #readRecord<T>(path: string, parse: (text: string) => T | undefined): Promise<T | undefined> {
    const text = await orAbsent(readFile(path, 'utf8'));
    return text === undefined ? undefined : parse(text);
  }
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r+');
  await file.datasync();
}

/** @returns `undefined` when the file is not there; every other failure is thrown. */
async function orAbsent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
