import process from 'node:process';
import type { Logger } from 'pino';
import {
  deleteDaemonSet,
  type LabelledNode,
  labelledNodes,
  podsWith,
  readAgents,
} from '../kubernetes/agents.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import { connectKubernetes, type ObjectName } from '../kubernetes/client.ts';
import { deleteWebhook, webhookSelector, withdrawRegistrations } from '../kubernetes/webhook-removal.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { parseObjectName } from './object-name.ts';
import { PRODUCT } from './version.ts';

export interface UninstallFlags {
  readonly daemonSet: string;
  /** The webhook's Deployment; its registrations have its name. */
  readonly webhook?: string;
  /** Seconds. */
  readonly timeout: number;
}

const POLL_MS = 500;
/** Longer than the webhook takes to leave, and no part worth telling of what nodes have to wait. */
const WEBHOOK_MS = 30_000;

/**
 * `weir uninstall`: deletes the webhook and what it has registered, so that no Pod gets a name that is about to lead
 * nowhere; then the agents' DaemonSet, upon which each agent restores its node, and waits for the last.
 *
 * @throws Error that names the nodes that were not restored in time, with the remedy.
 */
export async function runUninstall(
  options: UninstallFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const { log, stop } = options;
  const daemonSet = parseObjectName(options.daemonSet, '--daemon-set');
  const kubernetes = connectKubernetes(PRODUCT);
  const deadline = performance.now() + options.timeout * 1000;
  const mayWait = (): boolean => performance.now() < deadline && !stop.aborted;
  /** An API server that is away for a moment is no reason to leave nodes as they are. */
  const patiently = async <Result>(ask: () => Promise<Result>): Promise<Result> => {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!mayWait()) throw error;
        log.warn({ err: error }, 'trying again');
        await pauseUnlessStopped(POLL_MS, stop);
      }
    }
  };

  if (options.webhook !== undefined) await removeWebhook(parseObjectName(options.webhook, '--webhook'));
  const agents = await patiently(() => readAgents(kubernetes, daemonSet));
  if (agents === undefined) {
    process.stdout.write(['there are no agents\n', ...(await left(kubernetes)).map(lineFor)].join(''));
    return;
  }
  const placed = async (): Promise<Set<string>> => {
    const pods = await podsWith(kubernetes, daemonSet.namespace, agents.selector);
    return new Set(pods.map(({ node }) => node).filter((node) => node !== ''));
  };
  const nodes = await patiently(placed);
  log.info({ nodes: nodes.size }, 'the agents are told to restore their nodes');
  await patiently(() => deleteDaemonSet(kubernetes, daemonSet));
  for (;;) {
    const running = await patiently(placed);
    const labelled = (await patiently(() => labelledNodes(kubernetes))).filter(({ name }) => nodes.has(name));
    if (running.size === 0 && labelled.length === 0) break;
    if (running.size === 0 || !mayWait()) throw notRestored(running, labelled);
    await pauseUnlessStopped(POLL_MS, stop);
  }
  process.stdout.write(
    nodes.size === 1
      ? '1 node is as it was before weir\n'
      : `${nodes.size} nodes are as they were before weir\n`,
  );

  /** A replica that still runs would register itself once more, so they go first. */
  async function removeWebhook(webhook: ObjectName): Promise<void> {
    const selector = await patiently(() => webhookSelector(kubernetes, webhook));
    if (selector !== undefined) {
      log.info('the webhook is told to leave');
      await patiently(() => deleteWebhook(kubernetes, webhook));
      const latest = performance.now() + WEBHOOK_MS;
      while ((await patiently(() => podsWith(kubernetes, webhook.namespace, selector))).length > 0) {
        // Pods of a node that is away are not gone until it is back, and register nothing.
        if (performance.now() > latest || !mayWait()) break;
        await pauseUnlessStopped(POLL_MS, stop);
      }
    }
    await patiently(() => withdrawRegistrations(kubernetes, webhook.name));
  }
}

/** What nobody will restore any more is told, and is no reason to keep the rest of a release. */
async function left(kubernetes: Kubernetes): Promise<readonly LabelledNode[]> {
  return labelledNodes(kubernetes).catch(() => []);
}

function lineFor(node: LabelledNode): string {
  return `${nameOf(node)} still has weir's label: look for files that begin with "# weir", or run "weir rollback" there\n`;
}

function notRestored(running: ReadonlySet<string>, labelled: readonly LabelledNode[]): Error {
  const known = new Map(labelled.map((node) => [node.name, nameOf(node)]));
  const names = [...new Set([...running, ...known.keys()])].map((name) => known.get(name) ?? name);
  const remedies = [
    ...(running.size === 0
      ? []
      : [
          'An agent that still runs restores its node once it can: uninstall again then, or without hooks to give the node up.',
        ]),
    ...([...known.keys()].every((name) => running.has(name)) ? [] : [BY_HAND]),
  ];
  return new Error(`not restored: ${names.join(', ')}. ${remedies.join(' ')}`);
}

const BY_HAND =
  'On a node without an agent, run "weir rollback", or remove the files that begin with "# weir"; then uninstall again.';

function nameOf({ name, reason, isReady }: LabelledNode): string {
  const why = [...(isReady ? [] : ['it is not ready']), ...(reason === undefined ? [] : [reason])];
  return why.length === 0 ? name : `${name} (${why.join('; ')})`;
}
