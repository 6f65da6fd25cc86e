import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import {
  clearLeftovers,
  makeDirectory,
  removeFile,
  removeFilesIn,
  removeIfEmpty,
  replaceFile,
} from '../process/durable-file.ts';
import { readDiskFile } from './disk-file.ts';
import { resolveOnNode } from './node-root.ts';
import type { NodePlace } from './state.ts';

/** What we did to the one file, remembered before it is done. */
export interface Memory {
  /** The file, as the node knows it. */
  readonly file: string;
  /** The text that we last wrote there, or were about to. */
  readonly written: string;
  /** The text that it replaced, which is there still when we were cut off. */
  readonly replaced?: string | undefined;
  /** How the file names the mirror. */
  readonly mirror: string;
  /** What stood there before: nothing, or the original of this name. */
  readonly original?: string | undefined;
  /** The directories that we made for it, outermost first, as the node knows them. */
  readonly made: readonly string[];
}

/** Keeps a {@link Memory} in a folder of its own below the state directory. */
export class MemoryFile {
  /** Where originals are kept beside it. */
  readonly originals: string;
  readonly #folder: string;
  readonly #file: string;
  #isUnreadable = false;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#file = join(folder, 'state.json');
    this.originals = join(folder, 'originals');
  }

  static async open({ root = '/', stateDir }: NodePlace, runtime: string): Promise<MemoryFile> {
    return new MemoryFile(join(await resolveOnNode(resolve(root), resolve(stateDir)), runtime));
  }

  /** `undefined` where nothing is remembered, and where it cannot be understood. */
  async load(log: Logger): Promise<Memory | undefined> {
    const disk = await readDiskFile(this.#file);
    if (disk.kind === 'absent') return undefined;
    const memory = schema.safeParse(parseJson(disk.text));
    if (memory.success) return memory.data;
    this.#isUnreadable = true;
    log.error({ file: this.#file }, 'the state file cannot be understood: going on from the file itself');
    return undefined;
  }

  async save(memory: Memory): Promise<void> {
    await makeDirectory(this.#folder, 0o700);
    await replaceFile(this.#file, `${JSON.stringify(memory, undefined, 2)}\n`, { mode: 0o600 });
  }

  /** Removes all of it, and originals that no memory ever named; what cannot be understood stays for a person. */
  async forget(): Promise<void> {
    if (this.#isUnreadable) return;
    await removeFile(this.#file);
    await removeFilesIn(this.originals, () => true);
    await removeIfEmpty(this.originals);
    await clearLeftovers(this.#folder);
    await removeIfEmpty(this.#folder);
  }
}

const schema = z.strictObject({
  file: z.string().startsWith('/'),
  written: z.string(),
  replaced: z.string().optional(),
  mirror: z.string(),
  original: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .optional(),
  made: z.array(z.string().startsWith('/')),
});
