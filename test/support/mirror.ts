import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { parseConfig } from '../../config/parse.ts';
import { createMetrics, type Registry as Metrics } from '../../process/metrics.ts';
import { type RunningServer, serve, urlOf } from '../../process/server.ts';
import { FilesystemStore } from '../../registry/filesystem-store.ts';
import { Registry, type RegistryOptions } from '../../registry/registry.ts';

/** The registry on a port of its own, over a store in a directory of its own. */
export interface Mirror {
  readonly url: string;
  readonly directory: string;
  readonly metrics: Metrics;
  configure(yaml: string): void;
  close(): Promise<void>;
}

export async function startMirror(
  yaml: string,
  options: Partial<RegistryOptions> & { directory?: string } = {},
): Promise<Mirror> {
  const directory = options.directory ?? (await temporaryDirectory());
  const store = await FilesystemStore.open(join(directory, 'store'));
  const log = pino({ level: 'silent' });
  const metrics = createMetrics();
  let { config } = parseConfig(yaml);
  const registry = new Registry({
    store,
    spoolDirectory: store.temporaryDirectory,
    spoolLimit: 1e9,
    config: () => config,
    prefixes: true,
    product: 'weir/test',
    absentTtl: 0,
    timeouts: { connect: 1_000, answer: 1_000, idle: 1_000 },
    metrics,
    log,
    ...options,
  });
  const server: RunningServer = await serve(
    (request, response) => {
      // By which a door tells one that is slow from one that is ill.
      if (request.url === '/livez') response.end();
      else void registry.handle(request, response);
    },
    { host: '127.0.0.1', port: 0 },
    log,
  );
  return {
    url: urlOf(server.address),
    directory,
    metrics,
    configure(changed) {
      ({ config } = parseConfig(changed));
    },
    async close() {
      await registry.close();
      await server.drain();
      if (options.directory === undefined) await rm(directory, { recursive: true, force: true });
    },
  };
}

export async function temporaryDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'weir-test-'));
}
