import { createHash } from 'node:crypto';
import { readFile, realpath, rename } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { makeDirectory, replaceFile } from '../process/durable-file.ts';
import { codeOf, fileProblem, messageOf } from '../process/file-problem.ts';
import { isDirectoryName } from './host-directory.ts';

export interface Place {
  /** The runtime's directory of registry hosts (`/etc/containerd/certs.d`). */
  readonly certsDir: string;
  /** Where originals and our memory are kept (`/var/lib/weir`), for every certificates directory apart. */
  readonly stateDir: string;
  readonly log: Logger;
}

/** The same place, however it is named: by a relative path, or through symbolic links. */
export async function settle<T extends Place>(place: T): Promise<T> {
  return { ...place, certsDir: await realPath(resolve(place.certsDir)), stateDir: resolve(place.stateDir) };
}

/** What of the path is there already decides where the rest will be. */
async function realPath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' || dirname(path) === path) throw fileProblem('look at', path, error);
    return join(await realPath(dirname(path)), basename(path));
  }
}

/**
 * Reads what we remember of a certificates directory. A state file that cannot be understood is set aside: every
 * file of ours says by itself that it is ours, and what was there before.
 *
 * @throws Error when the state file can be neither read nor set aside.
 */
export async function openState({ certsDir, stateDir, log }: Place): Promise<State> {
  const path = resolve(certsDir);
  const folder = join(resolve(stateDir), createHash('sha256').update(path).digest('hex').slice(0, 16));
  const file = join(folder, 'state.json');
  const text = await readIfThere(file);
  if (text === undefined) return new State(folder, empty(path));
  try {
    return new State(folder, schemaFor(path).parse(JSON.parse(text)));
  } catch (error) {
    const aside = `${file}.unreadable-${Date.now()}`;
    await setAside(file, aside);
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    log.error(
      { file, aside, problem },
      'the state file cannot be understood and was set aside: going on from the files themselves',
    );
    return new State(folder, empty(path));
  }
}

/** What we wrote below a certificates directory, remembered before it is written there. */
export class State {
  readonly originals: string;
  readonly #folder: string;
  readonly #certsDir: string;
  readonly #files: Map<string, string>;
  #directories: readonly string[];
  #saved: string;

  constructor(folder: string, data: Data) {
    this.#folder = folder;
    this.#certsDir = data.certsDir;
    this.#files = new Map(Object.entries(data.files));
    this.#directories = data.directories;
    this.#saved = this.#format();
    this.originals = join(folder, 'originals');
  }

  /** The host directories that have, or had, a file of ours. */
  get names(): readonly string[] {
    return [...this.#files.keys()];
  }

  /** The directories that we made for all hosts together, outermost first. */
  get directories(): readonly string[] {
    return this.#directories;
  }

  /** The text that we last wrote into this host directory. */
  written(name: string): string | undefined {
    return this.#files.get(name);
  }

  remember(name: string, text: string): void {
    this.#files.set(name, text);
  }

  forget(name: string): void {
    this.#files.delete(name);
  }

  rememberDirectories(paths: readonly string[]): void {
    this.#directories = [...new Set([...this.#directories, ...paths])];
  }

  forgetDirectories(): void {
    this.#directories = [];
  }

  /** Writes what changed; where nothing ever was, nothing is made. */
  async save(): Promise<void> {
    const text = this.#format();
    if (text === this.#saved) return;
    await makeDirectory(this.#folder, 0o700);
    await replaceFile(join(this.#folder, 'state.json'), text, { mode: 0o600 });
    this.#saved = text;
  }

  #format(): string {
    const data: Data = {
      version: 1,
      certsDir: this.#certsDir,
      directories: [...this.#directories],
      files: Object.fromEntries(this.#files),
    };
    return `${JSON.stringify(data, undefined, 2)}\n`;
  }
}

type Data = z.infer<ReturnType<typeof schemaFor>>;

function empty(certsDir: string): Data {
  return { version: 1, certsDir, directories: [], files: {} };
}

/** Paths are taken from here: none may lead anywhere but the certificates directory and the way to it. */
function schemaFor(certsDir: string) {
  return z.strictObject({
    version: z.literal(1),
    certsDir: z.literal(certsDir),
    directories: z.array(z.string().refine((path) => isOnTheWay(path, certsDir))),
    files: z.record(z.string().refine(isDirectoryName), z.string()),
  });
}

function isOnTheWay(path: string, certsDir: string): boolean {
  return path === certsDir || (dirname(certsDir) !== certsDir && isOnTheWay(path, dirname(certsDir)));
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw fileProblem('read', file, error);
  }
}

async function setAside(file: string, aside: string): Promise<void> {
  try {
    await rename(file, aside);
  } catch (error) {
    throw fileProblem('set aside', file, error);
  }
}
