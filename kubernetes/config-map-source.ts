import type { Logger } from 'pino';
import { type ConfigEvents, ConfigIntake, type ConfigSource } from '../config/intake.ts';
import { type ConfigVersion, readVersion } from '../config/version.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import type { Kubernetes } from './api.ts';
import type { ObjectName } from './client.ts';
import { type ConfigText, watchConfigText } from './config-map.ts';
import type { ObjectWatch } from './object-watch.ts';

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

/** So long the API server may take at the start before a last good configuration is looked for, again and again. */
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
  const over = new AbortController();
  let isFallingBack = false;
  const fallBack = async (): Promise<void> => {
    if (isFallingBack) return;
    isFallingBack = true;
    for (let isTold = false; !over.signal.aborted && intake.version === undefined; isTold = true) {
      const known = await options.lastGood().catch((error: unknown) => {
        if (!isTold) log.warn({ err: error }, 'the last good configuration cannot be read');
        return undefined;
      });
      if (known !== undefined) first.resolve(known);
      else if (!isTold) log.error('no configuration is known yet; waiting for one');
      await pauseUnlessStopped(PATIENCE_MS, over.signal);
    }
  };
  const watch = watchConfigText({ kubernetes, configMap, log, changed: (text) => takeIn(intake, text) });
  const impatience = setTimeout(() => void fallBack(), PATIENCE_MS);
  const onStop = (): void => first.reject(stop.reason);
  stop.addEventListener('abort', onStop, { once: true });
  try {
    const version = await first.promise;
    // While the last good one was read, the ConfigMap's own may have come.
    source = new MapSource(intake.version ?? version, intake, watch);
    return source;
  } catch (error) {
    watch.close();
    throw error;
  } finally {
    over.abort();
    clearTimeout(impatience);
    stop.removeEventListener('abort', onStop);
  }
}

class MapSource implements ConfigSource {
  version: ConfigVersion;
  readonly #intake: ConfigIntake;
  readonly #watch: ObjectWatch<'configmaps'>;

  constructor(version: ConfigVersion, intake: ConfigIntake, watch: ObjectWatch<'configmaps'>) {
    this.version = version;
    this.#intake = intake;
    this.#watch = watch;
  }

  get refusal(): string | undefined {
    return this.#intake.refusal;
  }

  close(): Promise<void> {
    this.#watch.close();
    return Promise.resolve();
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
