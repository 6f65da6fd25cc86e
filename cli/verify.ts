import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type AgentPod, type Agents, podsWith, readAgents } from '../kubernetes/agents.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import { connectKubernetes } from '../kubernetes/client.ts';
import { createTrialPod, deleteTrialPod, pulledBy, type TrialPod } from '../kubernetes/trial-pod.ts';
import { describe, UsageError } from '../process/lifecycle.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { urlOf } from '../process/server.ts';
import { type DoorCount, judge, readDoorCount } from './door-count.ts';
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
const READY_POLL_MS = 2_000;
const METRICS_MS = 5_000;

/**
 * `weir verify`: has each node's own kubelet pull an image, and looks at the door of that node before and after.
 *
 * @throws Error when a node did not pull, or not through the mirror.
 */
export async function runVerify(
  options: VerifyFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const { image, stop } = options;
  const daemonSet = parseObjectName(options.daemonSet, '--daemon-set');
  const metricsPort = portOf(options.metricsPort);
  const kubernetes = connectKubernetes(PRODUCT);
  const agents = await readAgents(kubernetes, daemonSet);
  const { namespace } = daemonSet;
  const pods = agents === undefined ? [] : await podsWith(kubernetes, namespace, agents.selector);
  if (agents === undefined || pods.length === 0)
    throw new Error(`DaemonSet ${options.daemonSet} has no agents`);
  const owner = { name: daemonSet.name, uid: agents.uid };
  const { selector } = agents;
  const signal = AbortSignal.any([stop, AbortSignal.timeout(options.timeout * 1000)]);
  const results = await Promise.all(
    pods.map(async (agent) => {
      const trial = { kubernetes, agent, namespace, selector, image, metricsPort, owner, signal };
      const verdict = await verifyNode(trial).catch((error: unknown) => ({
        isGood: false,
        text: !signal.aborted
          ? describe(error)
          : stop.aborted
            ? 'told to stop before it had pulled'
            : `not pulled within ${options.timeout} s`,
      }));
      process.stdout.write(`${agent.node || agent.name}: ${verdict.text}\n`);
      return verdict.isGood;
    }),
  );
  const wrong = results.filter((isGood) => !isGood).length;
  if (wrong > 0) throw new Error(`${wrong} of ${results.length} nodes did not pull through the mirror`);
}

interface Trial {
  readonly kubernetes: Kubernetes;
  readonly agent: AgentPod;
  readonly namespace: string;
  /** Of the agents. */
  readonly selector: string;
  readonly image: string;
  readonly metricsPort: number;
  readonly owner: { readonly name: string; readonly uid: Agents['uid'] };
  readonly signal: AbortSignal;
}

async function verifyNode(given: Trial): Promise<{ isGood: boolean; text: string }> {
  const { image, signal } = given;
  if (given.agent.node === '') return { isGood: false, text: 'this agent was not put on a node yet' };
  const agent = await whenReady(given);
  if (!agent.ready) return { isGood: false, text: `its agent ${agent.name} is not ready` };
  const trial = { ...given, agent };
  for (;;) {
    const before = await doorCount(trial);
    const problem = await pull(trial);
    if (problem !== undefined) return { isGood: false, text: `${image} was not pulled: ${problem}` };
    const verdict = judge(before, await doorCount(trial), image);
    // Its counts began anew amid the pull, and tell nothing.
    if (verdict !== 'restarted') return verdict;
    await setTimeout(POLL_MS, undefined, { signal });
  }
}

/** The node's agent once it is ready, or as it is when there is no more time. */
async function whenReady({ kubernetes, namespace, selector, agent, signal }: Trial): Promise<AgentPod> {
  let now = agent;
  while (!now.ready && !signal.aborted) {
    await pauseUnlessStopped(READY_POLL_MS, signal);
    const pods = await podsWith(kubernetes, namespace, selector);
    now = pods.find(({ node }) => node === agent.node) ?? now;
  }
  return now;
}

/** Why the node could not pull; `undefined` when it could. */
async function pull(trial: Trial): Promise<string | undefined> {
  const { kubernetes, agent, signal } = trial;
  const pod = await createTrialPod(kubernetes, { ...trial, node: agent.node });
  try {
    return await pulled(kubernetes, pod, signal);
  } finally {
    await deleteTrialPod(kubernetes, pod);
  }
}

async function pulled(
  kubernetes: Kubernetes,
  pod: TrialPod,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (;;) {
    const found = await pulledBy(kubernetes, pod);
    if (found.kind === 'failed') return found.reason;
    if (found.kind === 'pulled') return undefined;
    await setTimeout(POLL_MS, undefined, { signal });
  }
}

/** An agent that is just starting again is waited for. */
async function doorCount({ agent, metricsPort, signal }: Trial): Promise<DoorCount> {
  const url = `${urlOf({ host: agent.hostIp, port: metricsPort })}/metrics`;
  for (;;) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(METRICS_MS) });
      if (answer.ok) return readDoorCount(await answer.text());
    } catch (error) {
      if (signal.aborted) throw new Error(`${url} does not answer`, { cause: error });
    }
    await setTimeout(POLL_MS, undefined, { signal });
  }
}

/** @throws UsageError */
function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535)
    throw new UsageError(`--metrics-port takes a port, and "${text}" is none`);
  return port;
}
