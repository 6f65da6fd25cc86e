import type { Logger } from 'pino';
import type { Registry as Metrics } from 'prom-client';
import { type Address, type RunningServer, serve, urlOf } from '../process/server.ts';
import { answerStatus, type Readiness } from '../process/status-routes.ts';
import type { FilesystemStore } from '../registry/filesystem-store.ts';
import { Registry } from '../registry/registry.ts';
import type { ProgramConfig } from './program-config.ts';
import { PRODUCT } from './version.ts';

export interface RegistryServerOptions {
  readonly address: Address;
  readonly config: ProgramConfig;
  readonly store: FilesystemStore;
  readonly prefixes: boolean;
  readonly caDir?: string;
  readonly apiServers: readonly string[];
  readonly metrics: Metrics;
  readonly log: Logger;
  /** What `/readyz` is to say beyond the registry itself. */
  readonly readiness?: () => Readiness;
}

/** The registry and its status on one listener. @throws Error when the address cannot be listened on. */
export async function startRegistry(options: RegistryServerOptions): Promise<RunningServer> {
  const { config, store, metrics, log } = options;
  const registry = new Registry({
    store,
    spoolDirectory: store.temporaryDirectory,
    config: () => config.current,
    prefixes: options.prefixes,
    ...(options.caDir === undefined ? {} : { caDirectory: options.caDir }),
    apiServers: options.apiServers,
    product: PRODUCT,
    metrics,
    log,
  });
  const readiness = (): Readiness => {
    const { ready, detail } = options.readiness?.() ?? { ready: true, detail: [] };
    return { ready, detail: [...detail, ...config.detail] };
  };
  const server = await serve(
    (request, response) => {
      if (!answerStatus(request, response, { metrics, readiness })) void registry.handle(request, response);
    },
    options.address,
    log,
  );
  log.info(
    { url: urlOf(server.address), upstreams: [...config.current.upstreams.keys()] },
    'the registry answers',
  );
  return {
    address: server.address,
    async drain() {
      log.info('draining');
      await server.drain();
      await registry.close();
    },
  };
}
