import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { watch } from 'chokidar';
import { type ConfigEvents, ConfigIntake, type ConfigSource } from './intake.ts';
import { ConfigError } from './problem.ts';
import { type ConfigVersion, readVersion } from './version.ts';

/** A directory's events come in bursts; the file is read once they pause. */
const SETTLE_MS = 100;

/**
 * The configuration in a file, read again whenever its directory changes: a ConfigMap mount replaces the link
 * `..data` beside the file and never touches the file itself.
 */
export class ConfigFile implements ConfigSource {
  readonly #path: string;
  readonly #intake: ConfigIntake;
  #version: ConfigVersion;
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> = Promise.resolve();
  readonly #close: () => Promise<void>;

  private constructor(path: string, version: ConfigVersion, events: ConfigEvents) {
    this.#path = path;
    this.#version = version;
    this.#intake = new ConfigIntake(
      {
        refused: (error) => events.refused(error),
        changed: (changed) => {
          this.#version = changed;
          events.changed(changed);
        },
      },
      version,
    );
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

  get refusal(): string | undefined {
    return this.#intake.refusal;
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
      this.#intake.take(await readConfigFile(this.#path));
    } catch (error) {
      this.#intake.refuse(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

/** @throws ConfigError when the text is refused, Error when the file cannot be read. */
export async function readConfigFile(path: string): Promise<ConfigVersion> {
  return readVersion(await readText(path), path);
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
