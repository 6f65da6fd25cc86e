import { join } from 'node:path';
import process from 'node:process';
import type { Logger } from 'pino';
import { type Agent, checkedMirror, startAgent } from '../agent/agent.ts';
import { CertsDirectories } from '../agent/certs-directories.ts';
import { applyConfig } from '../agent/certs-directory.ts';
import type { Change, HostState } from '../agent/change.ts';
import { pathOnNode } from '../agent/node-root.ts';
import { RestoreFailure } from '../agent/restore-failure.ts';
import { forgetNode, restoreWholeNode } from '../agent/restore-node.ts';
import { forgetPlace, rollback } from '../agent/rollback.ts';
import { KNOWN_CERTS_DIRS } from '../agent/runtimes/known-directories.ts';
import { seeNode } from '../agent/runtimes/see-node.ts';
import { type Place, rememberedDirectories, settle } from '../agent/state.ts';
import { formatProblem } from '../config/problem.ts';
import { readConfigFile } from '../config/watch.ts';
import { aborted, describe, UsageError } from '../process/lifecycle.ts';
import { createMetrics, Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { Readiness } from '../process/status-routes.ts';
import { checkHostRoot, isDirectory } from './host-root.ts';
import { LAST_GOOD_FILE } from './last-good-file.ts';
import type { AgentFlags, RollbackFlags } from './main.ts';
import { ProgramConfig } from './program-config.ts';
import { serveStatus } from './status-server.ts';

/** `weir agent` */
export async function runAgent(
  options: AgentFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  if (options.once === true) return await applyConfigOnce(options);
  const { certsDir, stateDir, listen, log, stop } = options;
  const mirror = mirrorOf(options.mirror);
  const metrics = createMetrics();
  const address = listen === undefined ? undefined : parseAddress(listen);
  const lastGood = join(stateDir, LAST_GOOD_FILE);
  await using cleanup = new AsyncDisposableStack();
  const config = await ProgramConfig.open({ file: options.config, lastGood, metrics, log });
  cleanup.defer(() => config.close());
  const files = new CertsDirectories({ stateDir, log }, [certsDir]);
  const agent = startAgent({ files, mirror, source: config, log });
  cleanup.defer(() => agent.close());
  measureStates(agent, metrics);
  if (address !== undefined) {
    const readiness = (): Readiness => agentReadiness(agent, config);
    const status = await serveStatus({ metrics, readiness }, address, log);
    cleanup.defer(() => status.drain());
  }
  await aborted(stop);
}

/** `weir rollback` */
export async function runRollback({
  certsDir,
  stateDir,
  hostRoot: root,
  log,
}: RollbackFlags & { readonly log: Logger }): Promise<void> {
  await checkHostRoot(root);
  if (certsDir !== undefined) {
    const place = { root, certsDir, stateDir, log };
    await checkCertsDir(place);
    await printRestored(rollback(place), `nothing of weir is in ${certsDir}`);
    return await forgetPlace(place, [LAST_GOOD_FILE]);
  }
  const place = { root, stateDir, log };
  // Files say by themselves that they are weir's, also where the state directory is lost. What the node's own files
  // tell is no more than a guess where the runtime is not asked.
  const { certsDirs } = await seeNode({ root });
  const directories = [...new Set([...KNOWN_CERTS_DIRS, ...certsDirs])];
  await printRestored(restoreWholeNode(place, directories), 'nothing of weir is on this node');
  await forgetNode(place, directories, [LAST_GOOD_FILE]);
}

/** @throws UsageError when there is no such directory, and never was one that weir wrote to. */
async function checkCertsDir(place: Place & { readonly root: string }): Promise<void> {
  const { root, certsDir } = await settle(place);
  if (await isDirectory(certsDir)) return;
  if ((await rememberedDirectories(place)).includes(pathOnNode(root, certsDir))) return;
  const below = root === '/' ? '' : ` below ${root}: --certs-dir is a path of the node`;
  throw new UsageError(
    `there is no directory ${place.certsDir}${below}, and weir wrote to none of that name`,
  );
}

/** What the agent's `/readyz` says: ready when each upstream is as it is to be, or somebody else decided about it. */
export function agentReadiness(agent: Agent, config?: ProgramConfig): Readiness {
  const states = [...agent.states()];
  const detail = states.flatMap(([host, state]) =>
    state.kind === 'configured' ? [] : [`${host}: ${state.kind}: ${state.reason}`],
  );
  return {
    ready: states.every(([, { kind }]) => kind !== 'failed'),
    detail: [...detail, ...(config?.detail ?? [])],
  };
}

const STATES: readonly HostState['kind'][] = [
  'configured',
  'overridden',
  'unparsable',
  'failed',
  'unsupported',
  'withdrawn',
];

/** Exports how many upstreams are in which state on this machine. */
export function measureStates(agent: Agent, metrics: Metrics): void {
  metrics.registerMetric(
    new Gauge({
      name: 'weir_agent_hosts',
      help: `Upstreams by the state of their files: ${STATES.join(', ')}.`,
      labelNames: ['state'],
      registers: [],
      collect(): void {
        this.reset();
        for (const state of STATES) this.set({ state }, 0);
        for (const { kind } of agent.states().values()) this.inc({ state: kind });
      },
    }),
  );
}

async function applyConfigOnce({
  config: file,
  certsDir,
  stateDir,
  mirror,
  log,
  stop,
}: AgentFlags & { log: Logger; stop: AbortSignal }): Promise<void> {
  const { config, warnings } = await readConfigFile(file).catch((error: unknown) => {
    throw new UsageError(describe(error));
  });
  for (const warning of warnings) log.warn(formatProblem(warning, file));
  const place = { certsDir, stateDir, log };
  const { changes, states, failures } = await applyConfig(place, { config, mirror: mirrorOf(mirror) }, stop);
  stop.throwIfAborted();
  const unmerged = [...states].flatMap(([host, state]) =>
    state.kind === 'unparsable' ? [`${host}: ${state.reason}`] : [],
  );
  const problems = [...failures.map(describe), ...unmerged];
  if (problems.length === 0 || changes.length > 0) print(changes, 'every file is as it is to be');
  if (problems.length > 0) throw new Error(`not every upstream is mirrored:\n${problems.join('\n')}`);
}

function mirrorOf(text: string): string {
  try {
    return checkedMirror(text);
  } catch (error) {
    throw new UsageError(describe(error));
  }
}

/** Also what was restored when not all was. */
async function printRestored(restored: Promise<readonly Change[]>, otherwise: string): Promise<void> {
  try {
    print(await restored, otherwise);
  } catch (error) {
    if (error instanceof RestoreFailure && error.changes.length > 0) print(error.changes, otherwise);
    throw error;
  }
}

function print(changes: readonly Change[], otherwise: string): void {
  const lines = changes.map(
    ({ kind, file, reason }) => `${kind} ${file}${reason === undefined ? '' : `: ${reason}`}`,
  );
  process.stdout.write(`${(lines.length > 0 ? lines : [otherwise]).join('\n')}\n`);
}
