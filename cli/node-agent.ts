import { isAbsolute, join } from 'node:path';
import type { Logger } from 'pino';
import { startAgent } from '../agent/agent.ts';
import type { HostState } from '../agent/change.ts';
import type { Proof } from '../agent/proof.ts';
import { Prover } from '../agent/prover.ts';
import { forgetPlace, rollback } from '../agent/rollback.ts';
import type { Place } from '../agent/state.ts';
import { connectKubernetes } from '../kubernetes/client.ts';
import { readLastGood } from '../kubernetes/last-good.ts';
import { Leaving } from '../kubernetes/leaving.ts';
import { type NodeMirror, NodeReporter } from '../kubernetes/node-report.ts';
import { reportEvent } from '../kubernetes/report-event.ts';
import { aborted, describe, UsageError } from '../process/lifecycle.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { Readiness } from '../process/status-routes.ts';
import { agentReadiness, measureStates } from './agent.ts';
import { type MirrorFlags, openMirror, wantedMirror } from './node-mirror.ts';
import { parseObjectName } from './object-name.ts';
import { LAST_GOOD_FILE, ProgramConfig } from './program-config.ts';
import { serveStatus } from './status-server.ts';
import { PRODUCT } from './version.ts';

export interface NodeAgentFlags extends MirrorFlags {
  readonly configMap: string;
  readonly node: string;
  readonly hostRoot: string;
  readonly certsDir: string;
  readonly stateDir: string;
  readonly daemonSet: string;
  /** The runtime's CRI socket, a path of the node. */
  readonly criSocket: string;
  readonly listen: string;
  /** Of the agent on one machine, and no use in a cluster. */
  readonly config?: string;
  readonly once?: boolean;
}

const REPORTER = 'weir-agent';

/** `weir agent --config-map`: on a node of a cluster. */
export async function runNodeAgent(
  flags: NodeAgentFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const { log, node } = flags;
  refuseContradictions(flags);
  const place: Place = { root: flags.hostRoot, certsDir: flags.certsDir, stateDir: flags.stateDir, log };
  const configMap = parseObjectName(flags.configMap, '--config-map');
  const daemonSet = parseObjectName(flags.daemonSet, '--daemon-set');
  const wanted = wantedMirror(flags);
  const address = parseAddress(flags.listen);
  const kubernetes = connectKubernetes(PRODUCT);
  const metrics = createMetrics();
  let readiness = waiting;

  await using cleanup = new AsyncDisposableStack();
  const status = await serveStatus({ metrics, readiness: () => readiness() }, address, log);
  cleanup.defer(() => status.drain());
  const leaving = new Leaving(kubernetes, daemonSet, log);
  cleanup.defer(() => leaving.close());
  const stop = AbortSignal.any([flags.stop, leaving.already]);
  const reporter = new NodeReporter(kubernetes, node, log);
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => (ended ??= leave(place, reporter, leaving));
  cleanup.defer(end);

  const config = await ProgramConfig.watch({
    kubernetes,
    configMap,
    lastGood: join(flags.hostRoot, flags.stateDir, LAST_GOOD_FILE),
    otherLastGood: () => readLastGood(kubernetes, configMap),
    metrics,
    log,
    stop,
  }).catch(unlessStopped(stop));
  if (config === undefined) return;
  cleanup.defer(() => config.close());

  const say = (mirror: NodeMirror, reason?: string, proof?: Proof): void =>
    reporter.report({
      mirror,
      configHash: config.version.hash,
      ...(reason === undefined ? {} : { reason: asOnNode(reason, place) }),
      ...(proof === undefined ? {} : { proof: proof.kind }),
    });
  const refused = async (problem: string): Promise<void> => {
    log.error(problem);
    readiness = () => ({ ready: false, detail: [problem, ...config.detail] });
    say('fallback', problem);
    await reportEvent(
      kubernetes,
      {
        subject: { kind: 'Node', name: node },
        type: 'Warning',
        reason: 'MirrorUnavailable',
        message: problem,
        reporter: REPORTER,
      },
      log,
    );
  };
  const mirror = await openMirror({ wanted, kubernetes, metrics, log, stop, place, refused });
  if (mirror === undefined) return;
  cleanup.defer(() => mirror.close());
  // The files go before what they name.
  cleanup.defer(end);

  const prover = new Prover({
    root: flags.hostRoot,
    socket: flags.criSocket,
    certsDir: flags.certsDir,
    mirror: mirror.url,
    metrics,
    log,
  });
  const judge = (): void => {
    const { proof } = prover;
    const problems = problemsOf(agent.states());
    if (!config.current.enabled) say('off');
    else if (problems !== '') say('fallback', problems, proof);
    else if (proof?.kind === 'bypassed')
      say('fallback', `the runtime does not ask the mirror: ${proof.reason}`, proof);
    else say('configured', proof?.kind === 'unproven' ? `unproven: ${proof.reason}` : undefined, proof);
  };
  const agent = startAgent({
    ...place,
    mirror: mirror.url,
    source: config,
    onApplied: judge,
    onCanary: (state, isChanged) => prover.look(state, isChanged),
  });
  prover.subscribe(judge);
  cleanup.defer(() => agent.close());
  cleanup.defer(() => prover.close());
  // It keeps a last good configuration, which is not to come back once the node has been left.
  cleanup.defer(() => config.close());
  measureStates(agent, metrics);
  readiness = () => agentReadiness(agent, config);
  await Promise.race([aborted(stop), mirror.moved]);
}

/** @throws UsageError */
function refuseContradictions({ config, once, node, ...directories }: NodeAgentFlags): void {
  if (config !== undefined) throw new UsageError('give either --config FILE or --config-map NAMESPACE/NAME');
  if (once === true) throw new UsageError('--once is for --config: with --config-map the agent stays');
  if (node === '') throw new UsageError('--node is empty');
  const { hostRoot, certsDir, stateDir } = directories;
  const paths = { '--host-root': hostRoot, '--certs-dir': certsDir, '--state-dir': stateDir };
  for (const [flag, path] of Object.entries(paths))
    if (!isAbsolute(path))
      throw new UsageError(`${flag} takes a path that begins with "/", and "${path}" does not`);
}

/** Paths as the node has them, not as they are mounted. */
function asOnNode(text: string, { root = '/' }: Place): string {
  return root === '/' ? text : text.replaceAll(`${root.replace(/\/+$/, '')}/`, '/');
}

function waiting(): Readiness {
  return { ready: false, detail: ['waiting for a configuration'] };
}

/** What a node is left with: its own files when the agents leave for good, ours when this one comes back. */
async function leave(place: Place, reporter: NodeReporter, leaving: Leaving): Promise<void> {
  const { log } = place;
  if (!(await leaving.isForGood())) {
    await reporter.close();
    log.info('the agent stops and leaves the files: until it is back, pulls go to the upstreams');
    return;
  }
  try {
    const changes = await rollback(place);
    await forgetPlace(place, [LAST_GOOD_FILE]);
    log.info({ changes }, 'the agent leaves for good, and the node is as it was');
    await reporter.conclude();
  } catch (error) {
    log.error({ err: error }, 'the agent leaves for good, and the node is not as it was');
    await reporter.conclude(`not restored: ${asOnNode(describe(error), place)}`);
  }
}

function problemsOf(states: ReadonlyMap<string, HostState>): string {
  return [...states]
    .flatMap(([host, state]) =>
      state.kind === 'configured' ? [] : [`${host}: ${state.kind}: ${state.reason}`],
    )
    .join('; ');
}

function unlessStopped(stop: AbortSignal): (error: unknown) => undefined {
  return (error) => {
    if (!stop.aborted) throw error;
    return undefined;
  };
}
