import type { Logger } from 'pino';
import { type ConfigEvents, ConfigIntake, type ConfigSource } from '../config/intake.ts';
import { type ConfigVersion, readVersion } from '../config/version.ts';
import type { Kubernetes, ObjectName } from './client.ts';
import { ConfigMapWatch, type ConfigText } from './config-map.ts';

export interface ConfigMapSourceOptions {
  readonly kubernetes: Kubernetes;
  readonly configMap: ObjectName;
  /** A configuration that was in force before, for when the ConfigMap cannot be used or the API server is away. */
  readonly lastGood: () => Promise<ConfigVersion | undefined>;
  readonly events: ConfigEvents;
  readonly log: Logger;
  /** Ends waiting. */
  readonly stop: AbortSignal;
}

/** So long the API server may take at the start before a last good configuration is looked for. */
const PATIENCE_MS = 5_000;

/**
 * The configuration in a ConfigMap, watched through the API. Resolves when there is one to go by: the ConfigMap's
 * own, the last good one, or the first that somebody writes.
 *
 * @throws the signal's reason when it is told to stop before there is one.
 */
export async function openConfigMap(options: ConfigMapSourceOptions): Promise<ConfigSource> {
  const { kubernetes, configMap, log, stop } = options;
  stop.throwIfAborted();
  const first = Promise.withResolvers<ConfigVersion>();
  let source: MapSource | undefined;
  const intake = new ConfigIntake({
    changed: (version) => {
      first.resolve(version);
      if (source === undefined) return;
      source.version = version;
      options.events.changed(version);
    },
    refused: (error) => {
      options.events.refused(error);
      void fallBack();
    },
  });
  const fallBack = async (): Promise<void> => {
    if (source !== undefined || intake.version !== undefined) return;
    const known = await options.lastGood().catch((error: unknown) => {
      log.warn({ err: error }, 'the last good configuration cannot be read');
      return undefined;
    });
    if (known === undefined) log.error('no configuration is known yet; waiting for one');
    else first.resolve(known);
  };
  const watch = new ConfigMapWatch({ kubernetes, configMap, log, changed: (text) => takeIn(intake, text) });
  const impatience = setTimeout(() => void fallBack(), PATIENCE_MS);
  const onStop = (): void => first.reject(stop.reason);
  stop.addEventListener('abort', onStop, { once: true });
  try {
    const version = await first.promise;
    // While the last good one was read, the ConfigMap's own may have come.
    source = new MapSource(intake.version ?? version, intake, watch);
    return source;
  } catch (error) {
    await watch.close();
    throw error;
  } finally {
    clearTimeout(impatience);
    stop.removeEventListener('abort', onStop);
  }
}

class MapSource implements ConfigSource {
  version: ConfigVersion;
  readonly #intake: ConfigIntake;
  readonly #watch: ConfigMapWatch;

  constructor(version: ConfigVersion, intake: ConfigIntake, watch: ConfigMapWatch) {
    this.version = version;
    this.#intake = intake;
    this.#watch = watch;
  }

  get refusal(): string | undefined {
    return this.#intake.refusal;
  }

  close(): Promise<void> {
    return this.#watch.close();
  }
}

function takeIn(intake: ConfigIntake, text: ConfigText): void {
  if (text.kind === 'missing') {
    intake.refuse(new Error(text.reason));
    return;
  }
  try {
    intake.take(readVersion(text.text, text.origin));
  } catch (error) {
    intake.refuse(error instanceof Error ? error : new Error(String(error)));
  }
}
