import { normalize } from 'node:path';
import { messageOf } from '../../process/file-problem.ts';
import type { AskCri, CriAnswer } from './ask-cri.ts';
import type { Located } from './containerd-registry.ts';
import { type Distribution, OTHER_RUNTIMES } from './distributions.ts';
import { type FoundDistribution, findDistribution } from './find-distribution.ts';
import { findVersion } from './find-version.ts';
import { findProcesses, flagOf, type HostProcess } from './host-processes.ts';
import type { NodeSight } from './node-sight.ts';
import { type NodeView, viewNode } from './node-view.ts';
import { NOTHING, seeContainerd } from './see-containerd.ts';

/**
 * Finds out what a node's runtime is, and where it looks for hosts.toml files, from the node's files alone: nothing
 * is written, and nothing of the node is executed.
 *
 * @throws Error when the node's files cannot be read at all.
 */
export async function seeNode(options: {
  /** Where the node's file system is mounted. */
  readonly root?: string;
  /** Without it, the runtime itself is asked nothing. */
  readonly askCri?: AskCri;
}): Promise<NodeSight> {
  const view = viewNode(options.root);
  const processes = await findProcesses(view.root, [
    'containerd',
    'crio',
    'dockerd',
    'cri-dockerd',
    'kubelet',
  ]);
  const found = await findDistribution(view, processes ?? []);
  const { distribution, socket, runtime } = found;
  const containerd = chooseContainerd(processes ?? [], found);
  const notes = [...(distribution.value.notes ?? [])];
  if (processes === undefined)
    notes.push(
      'the processes of the node cannot be seen (no /proc below its root): its files alone were read',
    );
  else if (runtime.value === 'containerd' && containerd === undefined)
    notes.push('no containerd runs on the node, as far as its /proc shows');
  const answer = await ask(options.askCri, { root: view.root, socket: socket?.value }).catch(
    (error: unknown) => {
      notes.push(`the runtime does not answer on ${socket?.value}: ${messageOf(error)}`);
      return undefined;
    },
  );
  const version = await findVersion(view, runtime.value, answer);
  const base = {
    distribution: { value: distribution.value.name, source: distribution.source },
    runtime,
    version: version && { value: version.value.text, source: version.source },
    socket,
  };
  if (distribution.value.refusal !== undefined)
    return { ...base, ...NOTHING, verdict: { kind: 'unsupported', ...distribution.value.refusal }, notes };
  if (runtime.value !== 'containerd')
    return {
      ...base,
      ...NOTHING,
      verdict: { kind: 'configurable' },
      notes: [...notes, OTHER_RUNTIMES[runtime.value]],
    };
  const main = await mainFile(view, distribution.value, containerd);
  if (socket === undefined && containerd === undefined && !(await view.exists(main.value)))
    return { ...base, ...NOTHING, verdict: { kind: 'unsupported', ...NO_RUNTIME }, notes };
  const rest = await seeContainerd(view, {
    main,
    version: version?.value,
    running: answer && runningConfigPath(answer),
    distribution: distribution.value,
    process: containerd,
  });
  return { ...base, ...rest, notes: [...notes, ...rest.notes] };
}

async function ask(
  askCri: AskCri | undefined,
  { root, socket }: { readonly root: string; readonly socket: string | undefined },
): Promise<Located<CriAnswer> | undefined> {
  if (askCri === undefined || socket === undefined) return undefined;
  const value = await askCri({ root, socket });
  return { value, source: `${value.name}, on ${socket}` };
}

function runningConfigPath({ value, source }: Located<CriAnswer>): Located<string> | undefined {
  return value.configPath === undefined ? undefined : { value: value.configPath, source };
}

const NO_RUNTIME = {
  reason: 'no container runtime is found: neither its process, nor its socket, nor its configuration',
  remedy: "Run this on the node itself, or with the node's file system mounted.",
} as const;

/** The one that listens at the kubelet's socket, as far as that is told, or that the distribution has. */
function chooseContainerd(
  processes: readonly HostProcess[],
  { distribution, socket }: FoundDistribution,
): HostProcess | undefined {
  const found = processes.filter(isContainerd);
  return (
    found.find((process) => flagOf(process, '--address', '-a') === (socket?.value ?? '')) ??
    found.find((process) => distribution.value.configFiles.includes(configFlag(process) ?? '')) ??
    found.find((process) => configFlag(process) === undefined) ??
    found[0]
  );
}

function isContainerd({ args }: HostProcess): boolean {
  const [name = ''] = args;
  // Docker's own has a configuration of its own, without CRI.
  return /(?:^|\/)containerd$/.test(name) && !args.some((arg) => arg.includes('/docker/containerd/'));
}

function configFlag(process: HostProcess): string | undefined {
  return flagOf(process, '--config', '-c');
}

async function mainFile(
  view: NodeView,
  { configFiles }: Distribution,
  process: HostProcess | undefined,
): Promise<Located<string>> {
  const flag = process === undefined ? undefined : configFlag(process);
  if (process !== undefined && flag !== undefined)
    return { value: normalize(flag), source: `the command line of process ${process.pid}` };
  for (const path of configFiles)
    if (await view.exists(path)) return { value: path, source: 'where this distribution has it' };
  return { value: configFiles[0] ?? '', source: 'where this distribution has it' };
}
