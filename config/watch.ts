import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { watch } from 'chokidar';
import type { Config } from './config.ts';
import { parseConfig } from './parse.ts';
import { ConfigError, type Problem } from './problem.ts';

/** What a program learns about its configuration while it runs. */
export interface ConfigEvents {
  /** A new configuration is in force, or the one in force can be read again. */
  changed(version: ConfigVersion): void;
  /** An edit was refused; the configuration before it stays in force. */
  refused(error: Error): void;
}

export interface ConfigVersion {
  readonly text: string;
  readonly config: Config;
  readonly warnings: readonly Problem[];
  /** Of the text, so that two places can tell whether they have the same. */
  readonly hash: string;
}

/** A directory's events come in bursts; the file is read once they pause. */
const SETTLE_MS = 100;

/**
 * The configuration in a file, read again whenever its directory changes: a ConfigMap mount replaces the link
 * `..data` beside the file and never touches the file itself.
 */
export class ConfigFile {
  readonly #path: string;
  readonly #events: ConfigEvents;
  #version: ConfigVersion;
  /** Hash of the last text that was refused, so that one slip is reported once. */
  #refused: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> = Promise.resolve();
  readonly #close: () => Promise<void>;

  private constructor(path: string, version: ConfigVersion, events: ConfigEvents) {
    this.#path = path;
    this.#version = version;
    this.#events = events;
    const watcher = watch(dirname(path), { depth: 0, ignoreInitial: true, followSymlinks: false });
    watcher.on('all', () => this.#schedule());
    watcher.on('error', (error) =>
      events.refused(new Error(`cannot watch ${dirname(path)}`, { cause: error })),
    );
    // What was written between the first reading and the start of the watch raises no event.
    watcher.on('ready', () => this.#schedule());
    this.#close = () => watcher.close();
  }

  /** Watches a file from which this version was read, or which is to replace it once it can be read. */
  static watch(path: string, version: ConfigVersion, events: ConfigEvents): ConfigFile {
    return new ConfigFile(resolve(path), version, events);
  }

  get version(): ConfigVersion {
    return this.#version;
  }

  /** Whether the file, as it is now, is the configuration in force. */
  get valid(): boolean {
    return this.#refused === undefined;
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#close();
    await this.#reading;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#reading = this.#reading.then(() => this.#read());
    }, SETTLE_MS);
  }

  async #read(): Promise<void> {
    try {
      const version = await readConfigFile(this.#path);
      const wasRefused = this.#refused !== undefined;
      this.#refused = undefined;
      // An edit that was refused and taken back is news too.
      if (version.hash === this.#version.hash && !wasRefused) return;
      this.#version = version;
      this.#events.changed(version);
    } catch (error) {
      const refusal = error instanceof Error ? error : new Error(String(error));
      if (this.#refused === refusal.message) return;
      this.#refused = refusal.message;
      this.#events.refused(refusal);
    }
  }
}

/** @throws ConfigError when the text is refused, Error when the file cannot be read. */
export async function readConfigFile(path: string): Promise<ConfigVersion> {
  const text = await readText(path);
  return {
    text,
    ...parseConfig(text, path),
    hash: createHash('sha256').update(text).digest('hex'),
  };
}

async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new Error(`cannot read the configuration ${path}`, { cause });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new ConfigError(path, [
      {
        severity: 'error',
        line: 0,
        column: 0,
        key: '',
        message: 'the file is not UTF-8',
        remedy: 'Save it as UTF-8.',
      },
    ]);
  }
}
