import { isAbsolute, join } from 'node:path';
import type { Logger } from 'pino';
import { restoreFormer } from '../agent/former-directories.ts';
import { nodeState, unconfigured } from '../agent/node-state.ts';
import { leaveNode } from '../agent/restore-node.ts';
import { KNOWN_CERTS_DIRS } from '../agent/runtimes/known-directories.ts';
import type { NodePlace } from '../agent/state.ts';
import { connectKubernetes, type ObjectName } from '../kubernetes/client.ts';
import { readLastGood } from '../kubernetes/last-good.ts';
import { Leaving } from '../kubernetes/leaving.ts';
import { NodeEvents } from '../kubernetes/node-events.ts';
import { NodeReporter } from '../kubernetes/node-report.ts';
import { aborted, describe, UsageError } from '../process/lifecycle.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';
import type { Readiness } from '../process/status-routes.ts';
import { checkHostRoot } from './host-root.ts';
import { LAST_GOOD_FILE } from './last-good-file.ts';
import { forgetConfigure, NodeConfigure } from './node-configure.ts';
import { type MirrorFlags, openMirror, wantedMirror } from './node-mirror.ts';
import { NodeRuntime } from './node-runtime.ts';
import { standBy, startNodeWork, type Tell } from './node-work.ts';
import { parseObjectName } from './object-name.ts';
import { ProgramConfig } from './program-config.ts';
import { serveStatus } from './status-server.ts';
import { PRODUCT } from './version.ts';

export interface NodeAgentFlags extends MirrorFlags {
  readonly configMap: string;
  readonly node: string;
  readonly hostRoot: string;
  /** Instead of where the runtime was found to look. */
  readonly certsDir?: string;
  readonly stateDir: string;
  readonly daemonSet: string;
  /** The runtime's CRI socket, a path of the node, instead of what was found. */
  readonly criSocket?: string;
  readonly listen: string;
  /** Set `config_path` of the runtime where it is missing, and restart it. */
  readonly configureRuntime?: boolean;
  /** Which one node at a time has while it does that. */
  readonly lease?: string;
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
  await checkHostRoot(flags.hostRoot);
  const place: NodePlace = { root: flags.hostRoot, stateDir: flags.stateDir, log };
  const configMap = parseObjectName(flags.configMap, '--config-map');
  const daemonSet = parseObjectName(flags.daemonSet, '--daemon-set');
  const wanted = await wantedMirror(flags);
  const lease = wantedLease(flags);
  const address = parseAddress(flags.listen);
  const kubernetes = connectKubernetes(PRODUCT);
  // It waits most of the time, on every node.
  const metrics = createMetrics({ lookEveryMs: 1_000 });
  let readiness = waiting;
  let isDoorOpen = false;

  await using cleanup = new AsyncDisposableStack();
  const status = await serveStatus({ metrics, readiness: () => readiness() }, address, log);
  cleanup.defer(() => status.drain());
  const leaving = new Leaving(kubernetes, daemonSet, log);
  cleanup.defer(() => leaving.close());
  const stop = AbortSignal.any([flags.stop, leaving.already]);
  const events = new NodeEvents({ kubernetes, node, reporter: REPORTER, log });
  const reporter = new NodeReporter(kubernetes, node, log, { events, nodes: () => leaving.nodes });
  const certsDirs = [...KNOWN_CERTS_DIRS];
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => (ended ??= leave(place, certsDirs, reporter, leaving));
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

  const tell: Tell = (states, proof) => {
    const { reason, ...state } = nodeState(config.current, states, proof);
    reporter.report({
      ...state,
      isDoorOpen,
      configHash: config.version.hash,
      ...(reason === undefined ? {} : { reason: asOnNode(reason, place) }),
      ...(proof === undefined ? {} : { proof: proof.kind }),
    });
  };
  const refused = (problem: string): void => {
    log.error(problem);
    readiness = () => ({ ready: false, detail: [problem, ...config.detail] });
    tell(unconfigured(config.current, problem));
  };
  const mirror = await openMirror({ wanted, kubernetes, metrics, log, stop, place, refused });
  if (mirror === undefined) return;
  isDoorOpen = wanted.kind === 'door';
  cleanup.defer(() => mirror.close());
  // The files go before what they name.
  cleanup.defer(end);

  const runtime = await NodeRuntime.see({ ...flags, place, stop, refused });
  if (runtime === undefined) return;
  cleanup.defer(() => runtime.close());
  certsDirs.push(...runtime.certsDirs);
  // Of a runtime that was another one when weir wrote there.
  await restoreFormer(place, runtime.files).catch((error: unknown) =>
    log.error({ err: error }, 'files for what the runtime was before stay'),
  );
  const configure =
    lease === undefined
      ? undefined
      : new NodeConfigure({
          kubernetes,
          lease,
          node,
          place,
          sight: runtime.sight,
          log,
          refused: () => work.tell(),
        });
  cleanup.defer(async () => configure?.close());
  if (configure === undefined)
    await forgetConfigure(place).catch((error: unknown) =>
      log.error({ err: error }, "the runtime's configuration stays as weir made it"),
    );
  const { files } = runtime;
  const blocked = (): string =>
    [runtime.blocked, configure?.problem].filter((one) => one !== undefined).join('. ');
  if (files === undefined) log.warn({ reason: blocked() }, 'nothing is written on this node');
  const work =
    files === undefined
      ? standBy({ reason: blocked, mirror, config, metrics, log, tell })
      : startNodeWork({
          files,
          runtime,
          mirror,
          root: flags.hostRoot,
          config,
          metrics,
          log,
          tell,
        });
  cleanup.defer(() => work.close());
  // It keeps a last good configuration, which is not to come back once the node has been left.
  cleanup.defer(() => config.close());
  readiness = work.readiness;
  await Promise.race([
    aborted(stop),
    mirror.moved,
    runtime.changed,
    ...(configure ? [configure.changed] : []),
  ]);
}

/** @throws UsageError */
function refuseContradictions({ config, once, node, ...places }: NodeAgentFlags): void {
  if (config !== undefined) throw new UsageError('give either --config FILE or --config-map NAMESPACE/NAME');
  if (once === true) throw new UsageError('--once is for --config: with --config-map the agent stays');
  if (node === '') throw new UsageError('--node is empty');
  const { hostRoot, certsDir, stateDir, criSocket } = places;
  const paths = {
    '--host-root': hostRoot,
    '--certs-dir': certsDir,
    '--state-dir': stateDir,
    '--cri-socket': criSocket,
  };
  for (const [flag, path] of Object.entries(paths))
    if (path !== undefined && !isAbsolute(path))
      throw new UsageError(`${flag} takes a path that begins with "/", and "${path}" does not`);
}

/** @throws UsageError */
function wantedLease({ configureRuntime, lease }: NodeAgentFlags): ObjectName | undefined {
  if (configureRuntime !== true) return undefined;
  if (lease === undefined) throw new UsageError('--configure-runtime needs --lease NAMESPACE/NAME');
  return parseObjectName(lease, '--lease');
}

/** Paths as the node has them, not as they are mounted. */
function asOnNode(text: string, { root = '/' }: NodePlace): string {
  return root === '/' ? text : text.replaceAll(`${root.replace(/\/+$/, '')}/`, '/');
}

function waiting(): Readiness {
  return { ready: false, detail: ['waiting for a configuration'] };
}

/** What a node is left with: its own files when the agents leave for good, ours when this one comes back. */
async function leave(
  place: NodePlace,
  certsDirs: readonly string[],
  reporter: NodeReporter,
  leaving: Leaving,
): Promise<void> {
  const { log } = place;
  if (!(await leaving.isForGood())) {
    await reporter.part();
    log.info('the agent stops and leaves the files: until it is back, pulls go to the upstreams');
    return;
  }
  try {
    const changes = await leaveNode(place, certsDirs, [LAST_GOOD_FILE]);
    log.info({ changes }, 'the agent leaves for good, and the node is as it was');
    await reporter.conclude();
  } catch (error) {
    log.error({ err: error }, 'the agent leaves for good, and the node is not as it was');
    await reporter.conclude(`not restored: ${asOnNode(describe(error), place)}`);
  }
}

function unlessStopped(stop: AbortSignal): (error: unknown) => undefined {
  return (error) => {
    if (!stop.aborted) throw error;
    return undefined;
  };
}
