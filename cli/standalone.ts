import { join } from 'node:path';
import type { Logger } from 'pino';
import { type Agent, startAgent } from '../agent/agent.ts';
import { CertsDirectories } from '../agent/certs-directories.ts';
import { aborted } from '../process/lifecycle.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress, urlOf } from '../process/server.ts';
import type { Readiness } from '../process/status-routes.ts';
import { agentReadiness, measureStates } from './agent.ts';
import { LAST_GOOD_FILE } from './last-good-file.ts';
import type { StandaloneFlags } from './main.ts';
import { openStore } from './open-store.ts';
import { ProgramConfig } from './program-config.ts';
import { startRegistry } from './registry-server.ts';

/** `weir standalone`: the registry first, then the files that send containerd to it. */
export async function runStandalone(
  options: StandaloneFlags & {
    readonly apiServers: readonly string[];
    readonly log: Logger;
    readonly stop: AbortSignal;
  },
): Promise<void> {
  const { log, stop, certsDir, stateDir, data } = options;
  const metrics = createMetrics();
  const address = parseAddress(options.listen);
  await using cleanup = new AsyncDisposableStack();
  const config = await ProgramConfig.open({
    file: options.config,
    lastGood: join(data, LAST_GOOD_FILE),
    metrics,
    log,
  });
  cleanup.defer(() => config.close());
  const store = await openStore(`file:${join(data, 'store')}`, { log });
  cleanup.defer(() => store.close());
  let agent: Agent | undefined;
  const readiness = (): Readiness =>
    agent === undefined ? { ready: false, detail: ['starting'] } : agentReadiness(agent);
  const registry = await startRegistry({ ...options, address, config, store, metrics, readiness });
  cleanup.defer(() => registry.drain());
  const files = new CertsDirectories({ stateDir, log }, [certsDir]);
  const started = startAgent({ files, mirror: urlOf(registry.address), source: config, log });
  cleanup.defer(() => started.close());
  measureStates(started, metrics);
  await started.ready;
  agent = started;
  await aborted(stop);
}
