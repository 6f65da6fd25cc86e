import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import type { Logger } from 'pino';
import { deleteDaemonSet, nodesWith, podsWith, selectorOf } from '../kubernetes/agents.ts';
import { connectKubernetes } from '../kubernetes/client.ts';
import { MIRROR_LABEL } from '../kubernetes/node-report.ts';
import { parseObjectName } from './object-name.ts';
import { PRODUCT } from './version.ts';

export interface UninstallFlags {
  readonly daemonSet: string;
  /** Seconds. */
  readonly timeout: number;
}

const POLL_MS = 500;

/**
 * `weir uninstall`: deletes the agents' DaemonSet, upon which each agent restores its node, and waits for the last.
 *
 * @throws Error that names the nodes that were not restored in time, with the remedy.
 */
export async function runUninstall(
  options: UninstallFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const { log, stop } = options;
  const daemonSet = parseObjectName(options.daemonSet, '--daemon-set');
  const kubernetes = connectKubernetes(PRODUCT);
  const selector = await selectorOf(kubernetes, daemonSet);
  if (selector === undefined) {
    process.stdout.write('there are no agents\n');
    return;
  }
  const { namespace } = daemonSet;
  const nodes = new Set((await podsWith(kubernetes, namespace, selector)).map(({ node }) => node));
  log.info({ nodes: nodes.size }, 'the agents are told to restore their nodes');
  await deleteDaemonSet(kubernetes, daemonSet);
  const deadline = performance.now() + options.timeout * 1000;
  for (;;) {
    const left = new Set((await podsWith(kubernetes, namespace, selector)).map(({ node }) => node));
    const labelled = (await nodesWith(kubernetes, MIRROR_LABEL)).filter((node) => nodes.has(node));
    if (left.size === 0 && labelled.length === 0) break;
    if (left.size === 0 || performance.now() > deadline)
      throw new Error(
        `not restored: ${[...new Set([...left, ...labelled])].join(', ')}. ` +
          'Pulls there go to the upstreams; run "weir rollback" on these nodes, or remove the files that begin with "# weir".',
      );
    await setTimeout(POLL_MS, undefined, { signal: stop });
  }
  process.stdout.write(`${nodes.size} nodes are as they were before weir\n`);
}
