import { createHash } from 'node:crypto';
import { readdir, readFile, rename } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Logger } from 'pino';
import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import { makeDirectory, removeFile, removeIfEmpty, replaceFile } from '../process/durable-file.ts';
import { codeOf, fileProblem, messageOf } from '../process/file-problem.ts';
import { isDirectoryName } from './host-directory.ts';
import { pathOnNode, resolveOnNode } from './node-root.ts';

/** A node, and where weir keeps its memory on it. */
export interface NodePlace {
  /** Where the node's file system is mounted; without it, it is this machine's own. */
  readonly root?: string;
  /** Where originals and our memory are kept (`/var/lib/weir`), for every certificates directory apart. */
  readonly stateDir: string;
  readonly log: Logger;
}

export interface Place extends NodePlace {
  /** The runtime's directory of registry hosts (`/etc/containerd/certs.d`). */
  readonly certsDir: string;
  /** Where it looks for a host that has neither a directory nor a `_default` in that one. */
  readonly laterDirs?: readonly string[];
}

/** A place with its directories where they really are, below the root. */
export type Settled<T extends Place = Place> = T & { readonly root: string };

/** The same place, however it is named: by a relative path, or through symbolic links. */
export async function settle<T extends Place>(place: T): Promise<Settled<T>> {
  const root = resolve(place.root ?? '/');
  return {
    ...place,
    root,
    certsDir: await resolveOnNode(root, resolve(place.certsDir)),
    stateDir: await resolveOnNode(root, resolve(place.stateDir)),
  };
}

/**
 * The certificates directories of which something is remembered, as the node knows them. A memory that cannot be read
 * is none.
 *
 * @throws Error when the state directory cannot be read.
 */
export async function rememberedDirectories(
  place: Pick<NodePlace, 'root' | 'stateDir'>,
): Promise<readonly string[]> {
  const stateDir = await resolveOnNode(resolve(place.root ?? '/'), resolve(place.stateDir));
  const names = await readdir(stateDir).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileProblem('list', stateDir, error);
  });
  const found: string[] = [];
  for (const name of names.filter((one) => FOLDER.test(one))) {
    const text = await readFile(join(stateDir, name, STATE_FILE), 'utf8').catch(() => '');
    const certsDir = ownerSchema.safeParse(parseJson(text)).data?.certsDir;
    if (certsDir !== undefined && folderOf(certsDir) === name) found.push(certsDir);
  }
  return found;
}

const STATE_FILE = 'state.json';
const FOLDER = /^[0-9a-f]{16}$/;
const ownerSchema = z.object({ certsDir: z.string() });

function folderOf(certsDir: string): string {
  return createHash('sha256').update(certsDir).digest('hex').slice(0, 16);
}

/**
 * Reads what we remember of a certificates directory. A state file that cannot be understood is set aside: every
 * file of ours says by itself that it is ours, and what was there before.
 *
 * @throws Error when the state file can be neither read nor set aside.
 */
export async function openState({ root, certsDir, stateDir, log }: Settled): Promise<State> {
  // As the node knows it, so that it is the same memory whether the root is mounted or not.
  const path = pathOnNode(root, certsDir);
  const folder = join(stateDir, folderOf(path));
  const file = join(folder, STATE_FILE);
  const text = await readIfThere(file);
  if (text === undefined) return new State(root, folder, empty(path));
  try {
    return new State(root, folder, schemaFor(path).parse(JSON.parse(text)));
  } catch (error) {
    const aside = `${file}.unreadable-${Date.now()}`;
    await setAside(file, aside);
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    log.error(
      { file, aside, problem },
      'the state file cannot be understood and was set aside: going on from the files themselves',
    );
    return new State(root, folder, empty(path));
  }
}

/** What we wrote below a certificates directory, remembered before it is written there. */
export class State {
  readonly originals: string;
  readonly #root: string;
  readonly #folder: string;
  readonly #certsDir: string;
  readonly #files: Map<string, string>;
  #directories: readonly string[];
  #saved: string;

  constructor(root: string, folder: string, data: Data) {
    this.#root = root;
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
    return this.#directories.map((path) => join(this.#root, path));
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
    const onNode = paths.map((path) => pathOnNode(this.#root, path));
    this.#directories = [...new Set([...this.#directories, ...onNode])];
  }

  forgetDirectories(): void {
    this.#directories = [];
  }

  /** Writes what changed; where nothing ever was, nothing is made. */
  async save(): Promise<void> {
    const text = this.#format();
    if (text === this.#saved) return;
    await makeDirectory(this.#folder, 0o700);
    await replaceFile(join(this.#folder, STATE_FILE), text, { mode: 0o600 });
    this.#saved = text;
  }

  /** Removes the memory itself, unless there is something in it. */
  async removeIfEmpty(): Promise<void> {
    if (this.#files.size > 0 || this.#directories.length > 0) return;
    await removeFile(join(this.#folder, STATE_FILE));
    await removeIfEmpty(this.originals);
    await removeIfEmpty(this.#folder);
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
