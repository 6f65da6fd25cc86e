import type { Logger } from 'pino';
import type { ConfigEvents } from '../config/intake.ts';
import { connectKubernetes } from '../kubernetes/client.ts';
import { keepLastGood, readLastGood } from '../kubernetes/last-good.ts';
import { reportEvent } from '../kubernetes/report-event.ts';
import { aborted, describe, UsageError } from '../process/lifecycle.ts';
import { createMetrics, type Registry as Metrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { RegistryFlags } from './main.ts';
import { parseObjectName } from './object-name.ts';
import { openStore } from './open-store.ts';
import { ProgramConfig } from './program-config.ts';
import { startRegistry } from './registry-server.ts';
import { serveStatus } from './status-server.ts';
import { PRODUCT } from './version.ts';

type Options = RegistryFlags & {
  readonly apiServers: readonly string[];
  readonly log: Logger;
  readonly stop: AbortSignal;
};

/** `weir registry` */
export async function runRegistry(options: Options): Promise<void> {
  const { log, stop, caDir, spoolDir } = options;
  const metrics = createMetrics();
  const address = parseAddress(options.listen);
  await using cleanup = new AsyncDisposableStack();
  const config = await openConfig(options, metrics);
  if (config === undefined) return;
  cleanup.defer(() => config.close());
  const store = await openStore(options.store, {
    log,
    ...(caDir === undefined ? {} : { caDirectory: caDir }),
    ...(spoolDir === undefined ? {} : { spoolDirectory: spoolDir }),
  });
  cleanup.defer(() => store.close());
  const registry = await startRegistry({ ...options, address, config, store, metrics });
  cleanup.defer(() => registry.drain());
  await aborted(stop);
}

/** The configuration, in a file or in a ConfigMap; `undefined` when it was told to stop before there was one. */
async function openConfig(options: Options, metrics: Metrics): Promise<ProgramConfig | undefined> {
  const { config, configMap, log, stop } = options;
  if ((config === undefined) === (configMap === undefined))
    throw new UsageError('give either --config FILE or --config-map NAMESPACE/NAME');
  if (config !== undefined) return ProgramConfig.open({ file: config, metrics, log });

  const place = parseObjectName(configMap ?? '', '--config-map');
  const kubernetes = connectKubernetes(PRODUCT);
  // A Pod that waits for its configuration is alive and not ready.
  const waiting = await serveStatus(
    { metrics, readiness: () => ({ ready: false, detail: ['waiting for a configuration'] }) },
    parseAddress(options.listen),
    log,
  );
  try {
    return await ProgramConfig.watch({
      kubernetes,
      configMap: place,
      otherLastGood: () => readLastGood(kubernetes, place),
      events: tellCluster(kubernetes, place, log),
      metrics,
      log,
      stop,
    });
  } catch (error) {
    if (!stop.aborted) throw error;
    return undefined;
  } finally {
    await waiting.drain();
  }
}

/** Keeps what came into force for whoever starts amid a bad edit, and says under the ConfigMap what was refused. */
function tellCluster(
  kubernetes: ReturnType<typeof connectKubernetes>,
  configMap: ReturnType<typeof parseObjectName>,
  log: Logger,
): ConfigEvents {
  let isRefused = false;
  const report = (type: 'Normal' | 'Warning', reason: string, message: string): void =>
    void reportEvent(
      kubernetes,
      { subject: { kind: 'ConfigMap', ...configMap }, type, reason, message, reporter: 'weir-registry' },
      log,
    );
  return {
    changed({ text, hash }) {
      keepLastGood(kubernetes, configMap, text).catch((error: unknown) =>
        log.warn({ err: error }, 'a replica that starts amid a bad edit would find no configuration'),
      );
      if (isRefused) report('Normal', 'ConfigAccepted', `configuration ${hash.slice(0, 12)} is in force`);
      isRefused = false;
    },
    refused(error) {
      isRefused = true;
      report('Warning', 'ConfigRefused', `${describe(error)}\nThe configuration before it stays in force.`);
    },
  };
}
