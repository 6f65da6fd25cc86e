import type { Logger } from 'pino';
import { aborted, UsageError } from '../process/lifecycle.ts';
import { createMetrics, type Registry as Metrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { RegistryFlags } from './main.ts';
import { openStore } from './open-store.ts';
import { ProgramConfig } from './program-config.ts';
import { RegistryCertificate } from './registry-certificate.ts';
import { startRegistry } from './registry-server.ts';

type Options = RegistryFlags & {
  readonly apiServers: readonly string[];
  readonly log: Logger;
  readonly stop: AbortSignal;
};

/** `weir registry` */
export async function runRegistry(options: Options): Promise<void> {
  const { log, stop, caDir, spoolDir, certDir } = options;
  const metrics = createMetrics();
  const address = parseAddress(options.listen);
  await using cleanup = new AsyncDisposableStack();
  const certificate =
    certDir === undefined ? undefined : await RegistryCertificate.open(certDir, { metrics, log });
  cleanup.defer(() => certificate?.close());
  const config = await openConfig(options, metrics, certificate);
  if (config === undefined) return;
  cleanup.defer(() => config.close());
  const store = await openStore(options.store, {
    log,
    ...(caDir === undefined ? {} : { caDirectory: caDir }),
    ...(spoolDir === undefined ? {} : { spoolDirectory: spoolDir }),
  });
  cleanup.defer(() => store.close());
  const registry = await startRegistry({ ...options, address, config, store, metrics, certificate });
  cleanup.defer(() => registry.drain());
  await aborted(stop);
}

/** The configuration, in a file or in a ConfigMap; `undefined` when it was told to stop before there was one. */
async function openConfig(
  options: Options,
  metrics: Metrics,
  certificate: RegistryCertificate | undefined,
): Promise<ProgramConfig | undefined> {
  const { config, configMap = '', listen, log, stop } = options;
  if ((config === undefined) === (options.configMap === undefined))
    throw new UsageError('give either --config FILE or --config-map NAMESPACE/NAME');
  if (config !== undefined) return ProgramConfig.open({ file: config, metrics, log });

  // The Kubernetes client is large, and a file does without it.
  const { watchConfigMap } = await import('./registry-config-map.ts');
  return watchConfigMap({ configMap, listen, certificate, metrics, log, stop });
}
