import { createHash } from 'node:crypto';
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
import { Refusal } from './refusal.ts';

/**
 * How far it is:
 * - `configuring`: the file may have been edited; nothing was restarted
 * - `restarting`: the file is edited, and the runtime is, or is going to be, restarted
 * - `rolling back`: it did not do, for a reason, and the file is put back
 * - `done` and `failed`: there is nothing more to do
 */
export type Step = 'configuring' | 'restarting' | 'rolling back' | 'done' | 'failed';

/** What weir did to a runtime's configuration, written down before it is done. Paths are the node's own. */
export type Entry = z.infer<typeof entrySchema>;

const steps: readonly Step[] = ['configuring', 'restarting', 'rolling back', 'done', 'failed'];
const absolute = z.string().startsWith('/');
const entrySchema = z.strictObject({
  version: z.literal(1),
  /** By which version of weir. */
  weir: z.string(),
  step: z.enum(steps),
  /** Of `rolling back` and `failed`. */
  reason: z.string().optional(),
  /** Hash of all of the runtime's files as they were. */
  situation: z.string(),
  /** As the runtime names the file, and where it really is. */
  path: absolute,
  file: absolute,
  /** What there was; `null` when there was no file. */
  original: z
    .strictObject({
      hash: z.string(),
      mode: z.int().min(0).max(0o7777),
      uid: z.int().min(0),
      gid: z.int().min(0),
    })
    .nullable(),
  /** The text with the edit. */
  after: z.string(),
  keys: z.array(z.string()).min(1),
  /** What `config_path` is set to. */
  directory: absolute,
  /** Directories that were made for the file, outermost first. */
  directories: z.array(absolute),
  /** By whom the runtime is restarted, and its run before that. */
  restarter: z.string(),
  run: z.string().nullable(),
  /** What ran on it before. */
  running: z.array(z.string()),
  /** When it was told to restart, the last time at the end. */
  restarts: z.array(z.iso.datetime()),
});

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

  get entry(): Entry | undefined {
    return this.#entry;
  }

  /** Keeps the file as it is, with its owner and mode, and then says what is to be done. */
  async begin(entry: Entry, original: string | undefined): Promise<Entry> {
    await makeDirectory(this.#folder, 0o700);
    const name = originalOf(entry);
    if (original !== undefined && name !== undefined)
      await replaceFile(join(this.#folder, name), original, entry.original ?? {});
    const written = await this.#write(entry);
    // While another entry speaks of them, they stay.
    await this.#removeOriginals(name);
    return written;
  }

  /** @throws Error when there is no entry. */
  async to(step: Step, more: Partial<Pick<Entry, 'reason' | 'restarts' | 'running'>> = {}): Promise<Entry> {
    if (this.#entry === undefined) throw new Error(`${this.path} has no entry`);
    return this.#write({ ...this.#entry, ...more, step });
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
    await this.#removeOriginals();
    await clearLeftovers(this.#folder);
    await removeIfEmpty(this.#folder);
    this.#entry = undefined;
  }

  async #removeOriginals(but?: string): Promise<void> {
    const names = await viewNode(this.#root).names(dirname(this.path));
    for (const name of names.filter((one) => one.startsWith(ORIGINAL) && one !== but))
      await removeFile(join(this.#folder, name));
  }

  async #write(entry: Entry): Promise<Entry> {
    await replaceFile(join(this.#folder, FILE), `${JSON.stringify(entry, undefined, 2)}\n`, { mode: 0o600 });
    this.#entry = entry;
    return entry;
  }
}

const ORIGINAL = 'original-';

/** The name of the file under which it is kept. */
function originalOf({ original }: Entry): string | undefined {
  return original === null ? undefined : ORIGINAL + original.hash.slice(0, 16);
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
