import { existsSync } from 'node:fs';
import { lstat, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { geteuid } from 'node:process';
import type { Logger } from 'pino';
import { UsageError } from '../process/lifecycle.ts';
import { FilesystemStore, LAYOUT_FILE } from '../registry/filesystem-store.ts';
import { isS3Location, parseS3Location } from '../registry/s3-location.ts';
import type { Store } from '../registry/store.ts';

/** A store with what a registry needs to run over it. */
export interface OpenStore {
  readonly store: Store;
  /** For blobs on their way. */
  readonly spoolDirectory: string;
  /** Why it does not work at the moment, in one line. */
  problem(): string | undefined;
  close(): Promise<void>;
}

export interface StoreOptions {
  /** Where an S3 store's `ca` is looked for. */
  readonly caDirectory?: string;
  /** Directory for blobs on their way, where the store has no file system of its own. */
  readonly spoolDirectory?: string;
  readonly log: Logger;
  /** The store is to be looked at, and must be there. */
  readonly mustExist?: boolean;
}

/**
 * Opens `file:DIR` or `s3://BUCKET/PREFIX?…`.
 *
 * @throws UsageError for what is no store; Error when it cannot be used, with one line that says why.
 */
export async function openStore(text: string, options: StoreOptions): Promise<OpenStore> {
  if (isS3Location(text)) return openS3Store(text, options);
  const directory = /^file:(?:\/\/)?(.+)$/.exec(text)?.[1];
  if (directory === undefined)
    throw new UsageError(`"${text}" is no store; write file:DIR or s3://BUCKET/PREFIX?region=REGION`);
  if (options.mustExist === true && !existsSync(join(directory, LAYOUT_FILE)))
    throw new UsageError(`${directory} holds no store of weir`);
  const store = await FilesystemStore.open(resolve(directory));
  return {
    store,
    spoolDirectory: options.spoolDirectory ?? store.temporaryDirectory,
    problem: () => undefined,
    close: () => Promise.resolve(),
  };
}

async function openS3Store(
  text: string,
  { log, caDirectory, spoolDirectory, mustExist }: StoreOptions,
): Promise<OpenStore> {
  // The SDK is large, and a filesystem store does without it.
  const { S3Store } = await import('../registry/s3-store.ts');
  const location = parseS3Location(text);
  const stop = new AbortController();
  const spool = spoolDirectory ?? (mustExist === true ? tmpdir() : await ownSpoolDirectory());
  const close = async (): Promise<void> => stop.abort(new Error('weir is stopping'));
  try {
    const given = {
      ...(caDirectory === undefined ? {} : { caDirectory }),
      ...(mustExist === undefined ? {} : { mustExist }),
    };
    const store = await S3Store.open(location, { log, signal: stop.signal, ...given });
    return { store, spoolDirectory: spool, problem: () => store.problem, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * The same at every start, so that what a killed process has left there is swept by the next one.
 *
 * @throws Error when somebody else has it, who could read or change what is on its way.
 */
async function ownSpoolDirectory(): Promise<string> {
  const uid = geteuid?.();
  const path = join(tmpdir(), `weir-spool-${uid ?? 'own'}`);
  await mkdir(path, { recursive: true, mode: 0o700 });
  const found = await lstat(path);
  if (!found.isDirectory() || (uid !== undefined && found.uid !== uid))
    throw new Error(`${path} is not of the user that weir runs as; name another directory with --spool-dir`);
  return path;
}
