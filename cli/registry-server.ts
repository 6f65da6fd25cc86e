import { statfs } from 'node:fs/promises';
import type { Logger } from 'pino';
import { Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { type Address, type RunningServer, serve, urlOf } from '../process/server.ts';
import { answerStatus, type Readiness } from '../process/status-routes.ts';
import { Registry } from '../registry/registry.ts';
import type { OpenStore } from './open-store.ts';
import type { ProgramConfig } from './program-config.ts';
import type { RegistryCertificate } from './registry-certificate.ts';
import { PRODUCT } from './version.ts';

export interface RegistryServerOptions {
  readonly address: Address;
  readonly config: ProgramConfig;
  readonly store: OpenStore;
  readonly prefixes: boolean;
  readonly caDir?: string;
  readonly dockerConfig?: string;
  readonly apiServers: readonly string[];
  /** Without one it speaks plain HTTP. */
  readonly certificate?: RegistryCertificate | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** What `/readyz` is to say beyond the registry itself. */
  readonly readiness?: () => Readiness;
}

/** The registry and its status on one listener. @throws Error when the address cannot be listened on. */
export async function startRegistry(options: RegistryServerOptions): Promise<RunningServer> {
  const { config, store, certificate, metrics, log } = options;
  const registry = new Registry({
    store: store.store,
    spoolDirectory: store.spoolDirectory,
    spoolLimit: await spoolLimit(store.spoolDirectory),
    config: () => config.current,
    prefixes: options.prefixes,
    ...(options.caDir === undefined ? {} : { caDirectory: options.caDir }),
    ...(options.dockerConfig === undefined ? {} : { dockerConfig: options.dockerConfig }),
    apiServers: options.apiServers,
    product: PRODUCT,
    metrics,
    log,
  });
  const readiness = (): Readiness => {
    const { ready, detail } = options.readiness?.() ?? { ready: true, detail: [] };
    // Pulls go on without the store, so this registry stays ready.
    const problems = [store.problem(), certificate?.problem].filter((one) => one !== undefined);
    return { ready, detail: [...detail, ...config.detail, ...problems] };
  };
  metrics.registerMetric(
    new Gauge({
      name: 'weir_store_up',
      help: '1 while the store does what it is asked, 0 while pulls are served without it.',
      registers: [],
      collect(): void {
        this.set(store.problem() === undefined ? 1 : 0);
      },
    }),
  );
  const server = await serve(
    (request, response) => {
      if (!answerStatus(request, response, { metrics, readiness })) void registry.handle(request, response);
    },
    options.address,
    log,
    certificate,
  );
  log.info(
    { url: urlOf(server.address, certificate && 'https'), upstreams: [...config.current.upstreams.keys()] },
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

/** Half of what is free on the spool's file system at the start, in bytes. */
async function spoolLimit(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return Math.floor((bavail * bsize) / 2);
}
