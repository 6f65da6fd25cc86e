import { resolve } from 'node:path';
import type { Logger } from 'pino';
import { aborted, UsageError } from '../process/lifecycle.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import { FilesystemStore } from '../registry/filesystem-store.ts';
import type { RegistryFlags } from './main.ts';
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
  const { log, stop } = options;
  const metrics = createMetrics();
  const address = parseAddress(options.listen);
  const directory = storeDirectory(options.store);
  const config = await ProgramConfig.open({ file: options.config, metrics, log });
  const store = await FilesystemStore.open(directory);
  const registry = await startRegistry({ ...options, address, config, store, metrics });
  await aborted(stop);
  await registry.drain();
  await config.close();
}

/** @throws UsageError for a store that this version does not have. */
export function storeDirectory(text: string): string {
  const match = /^file:(?:\/\/)?(.+)$/.exec(text);
  if (match?.[1] === undefined) throw new UsageError(`"${text}" is no store; write file:DIR`);
  return resolve(match[1]);
}
