import type { Logger } from 'pino';
import { aborted } from '../process/lifecycle.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { RegistryFlags } from './main.ts';
import { openStore } from './open-store.ts';
import { ProgramConfig } from './program-config.ts';
import { startRegistry } from './registry-server.ts';

/** `weir registry` */
export async function runRegistry(
  options: RegistryFlags & {
    readonly apiServers: readonly string[];
    readonly log: Logger;
    readonly stop: AbortSignal;
  },
): Promise<void> {
  const { log, stop, caDir, spoolDir } = options;
  const metrics = createMetrics();
  const address = parseAddress(options.listen);
  await using cleanup = new AsyncDisposableStack();
  const config = await ProgramConfig.open({ file: options.config, metrics, log });
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
