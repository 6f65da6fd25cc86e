import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { Gauge, type Registry as Metrics } from 'prom-client';
import type { Config } from '../config/config.ts';
import { ConfigError, formatProblem } from '../config/problem.ts';
import { ConfigFile, type ConfigVersion, readConfigFile } from '../config/watch.ts';
import { makeDirectory, replaceFile } from '../process/durable-file.ts';
import { describe, UsageError } from '../process/lifecycle.ts';

export interface ProgramConfigOptions {
  readonly file: string;
  /** Where the last good configuration is kept, so that a restart amid a bad edit changes nothing. */
  readonly lastGood?: string;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** The configuration of a running program, with everything that is to be said about it said. */
export class ProgramConfig {
  readonly #options: ProgramConfigOptions;
  readonly #listeners = new Set<(config: Config) => void>();
  readonly #file: ConfigFile;

  private constructor(options: ProgramConfigOptions, version: ConfigVersion) {
    this.#options = options;
    this.#file = ConfigFile.watch(options.file, version, {
      changed: (changed) => this.#changed(changed),
      refused: (error) =>
        options.log.error(
          `the edit is refused, the configuration before it stays in force: ${describe(error)}`,
        ),
    });
    const file = this.#file;
    options.metrics.registerMetric(
      new Gauge({
        name: 'weir_config_valid',
        help: '1 while the configuration file is the one in force, 0 while an edit of it is refused.',
        registers: [],
        collect(): void {
          this.set(file.valid ? 1 : 0);
        },
      }),
    );
  }

  /** @throws UsageError when the file is refused or cannot be read, and there is no last good one. */
  static async open(options: ProgramConfigOptions): Promise<ProgramConfig> {
    const version = await readAtStart(options);
    const config = new ProgramConfig(options, version);
    await config.#keep(version);
    return config;
  }

  get current(): Config {
    return this.#file.version.config;
  }

  /** What `/readyz` is to tell of it. */
  get detail(): readonly string[] {
    return this.#file.valid
      ? []
      : ['an edit of the configuration is refused, the one before it is in force; the log says why'];
  }

  /** @returns a function that ends the subscription. */
  subscribe(listener: (config: Config) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #changed(version: ConfigVersion): void {
    const { log, file } = this.#options;
    log.info(
      { hash: version.hash.slice(0, 12), upstreams: version.config.upstreams.size },
      'the configuration changed',
    );
    for (const warning of version.warnings) log.warn(formatProblem(warning, file));
    void this.#keep(version);
    for (const listener of this.#listeners) listener(version.config);
  }

  async #keep(version: ConfigVersion): Promise<void> {
    const { lastGood, log } = this.#options;
    if (lastGood === undefined) return;
    try {
      await makeDirectory(dirname(lastGood));
      await replaceFile(lastGood, version.text);
    } catch (error) {
      log.warn({ err: error }, 'the last good configuration was not kept');
    }
  }
}

async function readAtStart({ file, lastGood, log }: ProgramConfigOptions): Promise<ConfigVersion> {
  let refusal: unknown;
  try {
    const version = await readConfigFile(file);
    for (const warning of version.warnings) log.warn(formatProblem(warning, file));
    return version;
  } catch (error) {
    refusal = error;
  }
  // A file that is not there is a slip in the command, not in the configuration.
  if (lastGood === undefined || !existsSync(file) || !existsSync(lastGood)) throw usage(refusal);
  log.error(
    `the configuration is refused, the last good one, ${lastGood}, is in force: ${describe(refusal)}`,
  );
  return readConfigFile(lastGood);
}

function usage(error: unknown): UsageError {
  return new UsageError(
    error instanceof ConfigError ? `the configuration is refused\n${error.message}` : describe(error),
  );
}
