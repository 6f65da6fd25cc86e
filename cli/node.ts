import process from 'node:process';
import type { Logger } from 'pino';
import { previewEdit } from '../agent/configure/proposal.ts';
import { Refusal } from '../agent/configure/refusal.ts';
import type { Target } from '../agent/configure/target.ts';
import { askCri } from '../agent/runtimes/ask-cri.ts';
import { type NodeSight, reasonOf } from '../agent/runtimes/node-sight.ts';
import { ownedOf } from '../agent/runtimes/owned-hosts.ts';
import { formatPlan, planNode } from '../agent/runtimes/plan.ts';
import { seeNode } from '../agent/runtimes/see-node.ts';
import { formatProblem } from '../config/problem.ts';
import { type ConfigVersion, readVersion } from '../config/version.ts';
import { readConfigFile } from '../config/watch.ts';
import { describe, UsageError } from '../process/lifecycle.ts';
import { checkHostRoot } from './host-root.ts';
import { mirrorUrl } from './mirror-url.ts';
import { parseObjectName } from './object-name.ts';
import { PRODUCT } from './version.ts';

export interface NodeFlags {
  readonly hostRoot: string;
}

export interface InspectFlags extends NodeFlags {
  readonly json?: boolean;
}

export interface PlanFlags extends NodeFlags {
  readonly config?: string;
  readonly configMap?: string;
  readonly mirror: string;
  readonly mirrorCa?: string;
  readonly certsDir?: string;
  readonly stateDir: string;
  /** As the agent is given it. */
  readonly configureRuntime?: boolean;
}

/** `weir node inspect` */
export async function inspectNode({ hostRoot, json }: InspectFlags): Promise<void> {
  await checkHostRoot(hostRoot);
  const sight = await seeNode({ root: hostRoot, askCri });
  process.stdout.write(json === true ? `${JSON.stringify(sight, undefined, 2)}\n` : formatSight(sight));
}

/** `weir node plan`: the difference on standard output, and what else there is to say on standard error. */
export async function planOfNode(flags: PlanFlags & { readonly log: Logger }): Promise<void> {
  const { hostRoot: root, stateDir, log } = flags;
  await checkHostRoot(root);
  const { url: mirror, ca: mirrorCa } = await mirrorUrl(flags.mirror, flags.mirrorCa);
  const { config: whole, warnings } = await readConfig(flags);
  for (const warning of warnings) log.warn(formatProblem(warning, flags.config ?? flags.configMap ?? ''));
  const sight = await seeNode({ root, askCri });
  const { certsDir, configureRuntime = false } = flags;
  const edit = configureRuntime ? await editOf(flags, sight) : undefined;
  const reason = certsDir === undefined && edit === undefined ? reasonOf(sight) : undefined;
  const left = ownedOf(whole, sight);
  const leftHosts = new Set(left.map(({ host }) => host));
  const upstreams = new Map([...whole.upstreams].filter(([host]) => !leftHosts.has(host)));
  // Only in a cluster is there a registry that answers for the canary.
  const canary = flags.configMap !== undefined;
  const plan = await planNode({
    root,
    sight,
    certsDir,
    stateDir,
    config: { ...whole, upstreams },
    mirror,
    mirrorCa,
    canary,
    configureRuntime,
    edit,
  });
  process.stdout.write(formatPlan(plan));
  for (const { host, reason } of left) say(`${host} is left alone: ${reason}`);
  for (const problem of plan.problems) say(problem);
  for (const { path, after } of plan.state)
    say(`${path} would be ${after === undefined ? 'removed' : 'written'}, for weir itself`);
  if (reason !== undefined) say(`nothing would be written: ${reason}`);
  else if (plan.files.length === 0) say('every file is as it is to be');
  if (edit !== undefined) say(`the runtime would be restarted for ${edit.path}, one node at a time`);
}

/** Says why there is none where one is wanted. */
async function editOf(
  { hostRoot: root, stateDir }: PlanFlags,
  sight: NodeSight,
): Promise<Target | undefined> {
  try {
    return await previewEdit({ root, stateDir, sight });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say(`config_path would not be set: ${error.message}. ${error.remedy}`);
    return undefined;
  }
}

function say(line: string): void {
  process.stderr.write(`weir: ${line}\n`);
}

async function readConfig({ config, configMap }: PlanFlags): Promise<ConfigVersion> {
  if ((config === undefined) === (configMap === undefined))
    throw new UsageError('give either --config FILE or --config-map NAMESPACE/NAME');
  try {
    return config === undefined ? await readConfigMap(configMap ?? '') : await readConfigFile(config);
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError(describe(error));
  }
}

async function readConfigMap(flag: string): Promise<ConfigVersion> {
  const name = parseObjectName(flag, '--config-map');
  // The Kubernetes client is large, and a file does without it.
  const { apiProblem, connectKubernetes } = await import('../kubernetes/client.ts');
  const { textIn } = await import('../kubernetes/config-map.ts');
  const found = await connectKubernetes(PRODUCT)
    .read('configmaps', name)
    .catch((error: unknown) => {
      throw apiProblem(`read ConfigMap ${flag}`, error);
    });
  const text = textIn(found, name);
  if (text.kind === 'missing') throw new UsageError(text.reason);
  return readVersion(text.text, text.origin);
}

/** One fact a line, with where it was read. */
export function formatSight(sight: NodeSight): string {
  const { verdict } = sight;
  const facts: (readonly [name: string, value: string, source?: string | undefined])[] = [
    ['distribution', sight.distribution.value, sight.distribution.source],
    ['runtime', sight.runtime.value, sight.runtime.source],
    ['version', sight.version?.value ?? 'not known', sight.version?.source],
    ['CRI socket', sight.socket?.value ?? 'not found', sight.socket?.source],
    ...sight.configFiles.map((path) => ['configuration', path] as const),
    ['config_path', sight.configPath?.value || 'not set', sight.configPath?.source],
    ...(sight.localPull === undefined
      ? []
      : [['pulls locally', sight.localPull.value, sight.localPull.source] as const]),
    ...sight.certsDirs.map((path) => ['weir writes to', path] as const),
    ...sight.laterDirs.map((path) => ['looked at later', path] as const),
    ...sight.ownedHosts.map(({ host, reason }) => ['left alone', `${host}: ${reason}`] as const),
    ...sight.notes.map((note) => ['note', note] as const),
    ['verdict', verdict.kind],
    ...(verdict.kind === 'configurable'
      ? []
      : ([
          ['reason', verdict.reason],
          ['remedy', verdict.remedy],
        ] as const)),
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts
    .map(
      ([name, value, source]) =>
        `${name.padEnd(width)}  ${value}${source === undefined ? '' : `  (${source})`}\n`,
    )
    .join('');
}
