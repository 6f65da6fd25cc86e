import { dirname, join, resolve } from 'node:path';
import * as z from 'zod';
import {
  clearLeftovers,
  makeDirectory,
  removeFile,
  removeIfEmpty,
  replaceFile,
} from '../../process/durable-file.ts';
import { messageOf } from '../../process/file-problem.ts';
import { pathOnNode, resolveOnNode } from '../node-root.ts';
import { viewNode } from '../runtimes/node-view.ts';
import { type Entry, entrySchema, follow, hashOf, isUnfinished, type NewEntry, type Step } from './entry.ts';
import { Refusal } from './refusal.ts';

const FOLDER = 'runtime-configuration';
const FILE = 'journal.json';

/** The one entry that there is of a node, below its state directory, with the file as it was beside it. */
export class Journal {
  /** Where it is, as the node knows it. */
  readonly path: string;
  readonly #root: string;
  readonly #folder: string;
  #entry: Entry | undefined;

  private constructor(root: string, path: string, entry: Entry | undefined) {
    this.path = path;
    this.#root = root;
    this.#folder = join(root, dirname(path));
    this.#entry = entry;
  }

  /** @throws Refusal when it cannot be understood: what was done is not known then. */
  static async open({
    root,
    stateDir,
  }: {
    readonly root: string;
    readonly stateDir: string;
  }): Promise<Journal> {
    const path = join(pathOnNode(root, await resolveOnNode(root, resolve(stateDir))), FOLDER, FILE);
    const text = (await viewNode(root).file(path))?.text;
    if (text === undefined) return new Journal(root, path, undefined);
    try {
      return new Journal(root, path, entrySchema.parse(JSON.parse(text)));
    } catch (error) {
      const problem = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
      throw new Refusal(
        `${path}, which says what weir did to the runtime's configuration, cannot be understood: ${problem}`,
        `Look whether the configuration is as it should be, and remove ${path}.`,
        { cause: error },
      );
    }
  }

  /** The directory that it has for itself, as the node knows it. */
  get folder(): string {
    return dirname(this.path);
  }

  get entry(): Entry | undefined {
    return this.#entry;
  }

  /** Keeps the file as it is, with its owner and mode, and then says what is to be done. */
  async begin(next: NewEntry, original: string | undefined): Promise<Entry> {
    const entry = follow(this.#entry, next);
    await makeDirectory(this.#folder, 0o700);
    const name = originalOf(entry);
    if (original !== undefined && name !== undefined)
      await replaceFile(join(this.#folder, name), original, entry.original ?? {});
    return this.#write(entry);
  }

  /** @throws Error when there is no entry, or it cannot be written: it is then as it was. */
  async to(step: Step, more: Partial<Pick<Entry, 'reason' | 'restarts' | 'running'>> = {}): Promise<Entry> {
    const next = { ...this.#known(), ...more, step };
    if (isUnfinished(next)) return this.#write(next);
    // What was for bringing it to its end alone.
    const { former: _, dump: __, ...finished } = next;
    return this.#write(finished);
  }

  /** As if it had not been begun: what was before it counts again. */
  async takeBack(): Promise<void> {
    const { former } = this.#known();
    if (former === undefined) await this.remove();
    else await this.#write(former);
  }

  /**
   * The text of the file as it was; `undefined` when there was none.
   *
   * @throws Error when it is lost.
   */
  async original(): Promise<string | undefined> {
    const name = this.#entry && originalOf(this.#entry);
    if (name === undefined) return undefined;
    const path = join(dirname(this.path), name);
    const text = (await viewNode(this.#root).file(path))?.text;
    if (text === undefined || hashOf(text) !== this.#entry?.original?.hash)
      throw new Error(`${path} is not the file that was saved there. Correct ${this.#entry?.path} by hand.`);
    return text;
  }

  /** Nothing is left of it. */
  async remove(): Promise<void> {
    // While there is an entry, what it speaks of is there.
    await removeFile(join(this.#folder, FILE));
    this.#entry = undefined;
    await this.#removeOriginals();
    await clearLeftovers(this.#folder);
    await removeIfEmpty(this.#folder);
  }

  #known(): Entry {
    if (this.#entry === undefined) throw new Error(`${this.path} has no entry`);
    return this.#entry;
  }

  async #write(entry: Entry): Promise<Entry> {
    await replaceFile(join(this.#folder, FILE), `${JSON.stringify(entry, undefined, 2)}\n`, { mode: 0o600 });
    this.#entry = entry;
    await this.#removeOriginals();
    return entry;
  }

  /** But those that the entry speaks of. */
  async #removeOriginals(): Promise<void> {
    const kept = [this.#entry, this.#entry?.former].map((entry) => entry && originalOf(entry));
    const names = await viewNode(this.#root).names(dirname(this.path));
    for (const name of names.filter((one) => one.startsWith(ORIGINAL) && !kept.includes(one)))
      await removeFile(join(this.#folder, name));
  }
}

const ORIGINAL = 'original-';

/** The name of the file under which it is kept. */
function originalOf({ original }: Pick<Entry, 'original'>): string | undefined {
  return original === null ? undefined : ORIGINAL + original.hash.slice(0, 16);
}
