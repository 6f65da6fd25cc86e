import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type AgentPod, agentPods } from '../kubernetes/agents.ts';
import { connectKubernetes, type Kubernetes } from '../kubernetes/client.ts';
import { createTrialPod, deleteTrialPod, pulledBy } from '../kubernetes/trial-pod.ts';
import { describe } from '../process/lifecycle.ts';
import { urlOf } from '../process/server.ts';
import { parseObjectName } from './object-name.ts';
import { PRODUCT } from './version.ts';

export interface VerifyFlags {
  readonly daemonSet: string;
  readonly image: string;
  readonly metricsPort: string;
  /** Seconds. */
  readonly timeout: number;
}

const POLL_MS = 500;
const METRICS_MS = 5_000;

/**
 * `weir verify`: has each node's own kubelet pull an image, and looks at the door of that node before and after.
 *
 * @throws Error when a node did not pull, or not through the mirror.
 */
export async function runVerify(
  options: VerifyFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const daemonSet = parseObjectName(options.daemonSet, '--daemon-set');
  const kubernetes = connectKubernetes(PRODUCT);
  const agents = await agentPods(kubernetes, daemonSet);
  if (agents === undefined || agents.length === 0)
    throw new Error(`DaemonSet ${options.daemonSet} has no agents`);
  const signal = AbortSignal.any([options.stop, AbortSignal.timeout(options.timeout * 1000)]);
  const { namespace } = daemonSet;
  const results = await Promise.all(
    agents.map(async (agent) => {
      const problem = await verifyNode({ kubernetes, agent, namespace, ...options, signal }).catch(
        (error: unknown) => (signal.aborted ? `not pulled within ${options.timeout} s` : describe(error)),
      );
      process.stdout.write(`${agent.node}: ${problem ?? 'pulled through the mirror'}\n`);
      return problem === undefined;
    }),
  );
  const wrong = results.filter((right) => !right).length;
  if (wrong > 0) throw new Error(`${wrong} of ${results.length} nodes did not pull through the mirror`);
}

/** What is wrong with the node; `undefined` when nothing is. */
async function verifyNode(options: {
  readonly kubernetes: Kubernetes;
  readonly agent: AgentPod;
  readonly namespace: string;
  readonly image: string;
  readonly metricsPort: string;
  readonly signal: AbortSignal;
}): Promise<string | undefined> {
  const { kubernetes, agent, namespace, image, metricsPort, signal } = options;
  if (!agent.ready) return `its agent ${agent.name} is not ready`;
  const metrics = `${urlOf({ host: agent.hostIp, port: Number(metricsPort) })}/metrics`;
  const before = await forwarded(metrics);
  const pod = await createTrialPod(kubernetes, { namespace, node: agent.node, image });
  try {
    for (;;) {
      const pulled = await pulledBy(kubernetes, pod);
      if (pulled.kind === 'failed') return `${image} was not pulled: ${pulled.reason}`;
      if (pulled.kind === 'pulled') break;
      await setTimeout(POLL_MS, undefined, { signal });
    }
  } finally {
    await deleteTrialPod(kubernetes, pod);
  }
  if (before === undefined) return undefined;
  return ((await forwarded(metrics)) ?? 0) > before
    ? undefined
    : `${image} was pulled, but the runtime did not ask the mirror; is its config_path set?`;
}

/** How many requests the node's door has passed on; `undefined` when the node asks the mirror without one. */
async function forwarded(url: string): Promise<number | undefined> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(METRICS_MS) });
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}`);
  const count = /^weir_door_requests_total\{outcome="forwarded"\} (\d+)$/m.exec(await answer.text())?.[1];
  return count === undefined ? undefined : Number(count);
}
