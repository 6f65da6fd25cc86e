import { existsSync } from 'node:fs';
import type { Logger } from 'pino';
import { Gauge, type Registry as Metrics } from 'prom-client';
import type { Config } from '../config/config.ts';
import type { ConfigEvents, ConfigSource } from '../config/intake.ts';
import { ConfigError, formatProblem } from '../config/problem.ts';
import type { ConfigVersion } from '../config/version.ts';
import { ConfigFile, readConfigFile } from '../config/watch.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { Latest } from '../process/latest.ts';
import { describe, UsageError } from '../process/lifecycle.ts';
import { keepLastGood, readLastGood } from './last-good-file.ts';

interface Options {
  /** Where the last good configuration is kept, so that a restart amid a bad edit changes nothing. */
  readonly lastGood?: string;
  readonly metrics: Metrics;
  readonly log: Logger;
}

export interface FileOptions extends Options {
  readonly file: string;
}

export interface ConfigMapOptions extends Options {
  readonly kubernetes: Kubernetes;
  readonly configMap: ObjectName;
  /** A last good configuration from elsewhere, asked for when {@link Options.lastGood} is not there. */
  readonly otherLastGood: () => Promise<ConfigVersion | undefined>;
  /** Is told of every configuration that comes into force, the first one included, and of every refusal. */
  readonly events?: ConfigEvents;
  /** Ends waiting for a configuration. */
  readonly stop: AbortSignal;
}

/** The configuration of a running program, with everything that is to be said about it said. */
export class ProgramConfig {
  readonly #options: Options;
  /** For people: where it is. */
  readonly #origin: string;
  readonly #file: string | undefined;
  readonly #listeners = new Set<(config: Config) => void>();
  /** Two writes at once would leave either text. */
  readonly #kept: Latest<ConfigVersion>;
  #source: ConfigSource | undefined;

  private constructor(options: Options, origin: string, file?: string) {
    this.#options = options;
    this.#origin = origin;
    this.#file = file;
    this.#kept = new Latest({
      act: (version) => this.#keep(version),
      failed: (error) => options.log.warn({ err: error }, 'the last good configuration was not kept'),
    });
    const isValid = (): boolean => this.#source !== undefined && this.#source.refusal === undefined;
    options.metrics.registerMetric(
      new Gauge({
        name: 'weir_config_valid',
        help: '1 while the configuration as it is written is the one in force, 0 while an edit of it is refused.',
        registers: [],
        collect(): void {
          this.set(isValid() ? 1 : 0);
        },
      }),
    );
  }

  /** @throws UsageError when the file is refused or cannot be read, and there is no last good one. */
  static async open(options: FileOptions): Promise<ProgramConfig> {
    const version = await readAtStart(options);
    const config = new ProgramConfig(options, options.file, options.file);
    config.#source = ConfigFile.watch(options.file, version, config.#events());
    config.#kept.put(version);
    return config;
  }

  /**
   * The configuration in a ConfigMap; waits until there is one to go by.
   *
   * @throws the signal's reason when it is told to stop before.
   */
  static async watch(options: ConfigMapOptions): Promise<ProgramConfig> {
    const { kubernetes, configMap, lastGood, otherLastGood, events, log, stop } = options;
    const config = new ProgramConfig(options, `ConfigMap ${configMap.namespace}/${configMap.name}`);
    // The Kubernetes client is large, and a file does without it.
    const { openConfigMap } = await import('../kubernetes/config-map-source.ts');
    const source = await openConfigMap({
      kubernetes,
      configMap,
      events: config.#events(events),
      lastGood: async () => (await readLastGoodFile(lastGood, log)) ?? (await otherLastGood()),
      log,
      stop,
    });
    config.#source = source;
    config.#say(source.version);
    events?.changed(source.version);
    config.#kept.put(source.version);
    return config;
  }

  get version(): ConfigVersion {
    if (this.#source === undefined) throw new Error('no configuration was read yet');
    return this.#source.version;
  }

  get current(): Config {
    return this.version.config;
  }

  /** What `/readyz` is to tell of it. */
  get detail(): readonly string[] {
    const refusal = this.#source?.refusal;
    return refusal === undefined
      ? []
      : [`the configuration is refused, the one before it stays in force: ${refusal}`];
  }

  /** @returns a function that ends the subscription. */
  subscribe(listener: (config: Config) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    await this.#source?.close();
    await this.#kept.close();
  }

  #events(others?: ConfigEvents): ConfigEvents {
    return {
      changed: (version) => {
        this.#say(version);
        this.#kept.put(version);
        for (const listener of this.#listeners) listener(version.config);
        others?.changed(version);
      },
      refused: (error) => {
        this.#options.log.error(
          `the configuration is refused, the one before it stays in force: ${describe(error)}`,
        );
        others?.refused(error);
      },
    };
  }

  #say({ hash, config, warnings }: ConfigVersion): void {
    const { log } = this.#options;
    log.info({ hash: hash.slice(0, 12), upstreams: config.upstreams.size }, 'the configuration is in force');
    for (const warning of warnings) log.warn(formatProblem(warning, this.#origin));
  }

  async #keep(version: ConfigVersion): Promise<void> {
    const { lastGood } = this.#options;
    if (lastGood !== undefined) await keepLastGood(lastGood, version, this.#file);
  }
}

async function readAtStart({ file, lastGood, log }: FileOptions): Promise<ConfigVersion> {
  let refusal: unknown;
  try {
    const version = await readConfigFile(file);
    for (const warning of version.warnings) log.warn(formatProblem(warning, file));
    return version;
  } catch (error) {
    refusal = error;
  }
  // A file that is not there is a slip in the command, not in the configuration.
  const known = lastGood !== undefined && existsSync(file) ? await readLastGood(lastGood, file) : undefined;
  if (known === undefined) throw usage(refusal);
  log.error(
    `the configuration is refused, the last good one, ${lastGood}, is in force: ${describe(refusal)}`,
  );
  return known;
}

async function readLastGoodFile(file: string | undefined, log: Logger): Promise<ConfigVersion | undefined> {
  if (file === undefined) return undefined;
  try {
    return await readLastGood(file);
  } catch (error) {
    log.warn({ err: error }, 'the last good configuration cannot be used');
    return undefined;
  }
}

function usage(error: unknown): UsageError {
  return new UsageError(
    error instanceof ConfigError ? `the configuration is refused\n${error.message}` : describe(error),
  );
}
