import { dirname } from 'node:path';
import { type Access, missingDirectories } from '../../process/durable-file.ts';
import { messageOf } from '../../process/file-problem.ts';
import { pathOnNode } from '../node-root.ts';
import { ConfigProblem } from '../runtimes/containerd-files.ts';
import { DISTRIBUTIONS } from '../runtimes/distributions.ts';
import type { HostProcess } from '../runtimes/host-processes.ts';
import { type NodeSight, reasonOf } from '../runtimes/node-sight.ts';
import { type NodeView, viewNode } from '../runtimes/node-view.ts';
import { parseVersion } from '../runtimes/version.ts';
import { configFlagOf } from './containerd-process.ts';
import { readWithAccess } from './file-access.ts';
import { findK0sDropIn } from './k0s-drop-in.ts';
import { Refusal } from './refusal.ts';
import { type Edit, findEdit } from './registry-edit.ts';

/** An edit, and the file in which it is made. */
export interface Target extends Edit {
  /** Where the file really is, links followed, as the node knows it. */
  readonly file: string;
  /** Of the file that is there. */
  readonly access: Access | undefined;
  /** Directories that have to be made for it, outermost first, as the node knows them. */
  readonly directories: readonly string[];
  /** What `config_path` is to be. */
  readonly directory: string;
}

/** Distributions that leave containerd's file to their administrator, and how it is changed there. */
const WAYS: Readonly<Record<string, 'edit' | 'drop-in of k0s'>> = {
  kubeadm: 'edit',
  'plain containerd': 'edit',
  kind: 'edit',
  minikube: 'edit',
  AKS: 'edit',
  k0s: 'drop-in of k0s',
};

/** Whether this distribution's containerd is restarted by the distribution itself, once its files have changed. */
export function restartsItself({ distribution }: NodeSight): boolean {
  return WAYS[distribution.value] === 'drop-in of k0s';
}

/**
 * What is to be edited on a node that has no `config_path`; `undefined` where none is missing.
 *
 * @throws Refusal when it is not ours to edit, or cannot be.
 */
export async function findTarget(
  root: string,
  sight: NodeSight,
  containerd: HostProcess | undefined,
): Promise<Target | undefined> {
  const directory = sight.missingConfigPath;
  if (directory === undefined) return undefined;
  const way = WAYS[sight.distribution.value];
  const remedy = sight.verdict.kind === 'configurable' ? '' : sight.verdict.remedy;
  if (way === undefined)
    throw new Refusal(`${sight.distribution.value} writes containerd's configuration itself`, remedy);
  const version = sight.version && parseVersion(sight.version.value);
  const main = mainFile(sight, containerd);
  if (version === undefined || main === undefined)
    throw new Refusal(`which version of containerd runs, or with which file, is not known`, remedy);
  const view = viewNode(root);
  const wanted = { view, main, version, directory };
  try {
    const edit = await (way === 'edit' ? findEdit(wanted) : findK0sDropIn(wanted));
    return edit && (await openTarget(view, edit, directory));
  } catch (error) {
    if (error instanceof ConfigProblem)
      throw new Refusal(messageOf(error), reasonOf(sight) ?? remedy, { cause: error });
    throw error;
  }
}

function mainFile(
  { configFiles, distribution }: NodeSight,
  containerd: HostProcess | undefined,
): string | undefined {
  const flag = containerd && configFlagOf(containerd);
  return (
    configFiles[0] ?? flag ?? DISTRIBUTIONS.find(({ name }) => name === distribution.value)?.configFiles[0]
  );
}

async function openTarget(view: NodeView, edit: Edit, directory: string): Promise<Target> {
  const { path, before } = edit;
  const here = await view.here(path);
  const onNode = (found: string): string => pathOnNode(view.root, found);
  const target = { ...edit, directory, file: onNode(here) };
  const byHand = `Set config_path = "${directory}" where this file comes from, and restart containerd.`;
  if (await view.isReadOnly(path))
    throw new Refusal(`${named(path, target.file)} is on a read-only file system`, byHand);
  if (before === undefined)
    return {
      ...target,
      access: undefined,
      directories: (await missingDirectories(dirname(here))).map(onNode),
    };
  const says = generatedLine(before);
  if (says !== undefined)
    throw new Refusal(`${path} says of itself that it is written by something: "${says}"`, byHand);
  const { bytes, access } = await readWithAccess(here);
  if (!bytes.equals(Buffer.from(before)))
    throw new Refusal(`${path} is not all UTF-8, or is just being changed`, `Correct ${path}.`);
  return { ...target, access, directories: [] };
}

function named(path: string, file: string): string {
  return path === file ? path : `${path}, which leads to ${file},`;
}

/** What a program says that writes the file again, in the comments that it begins with. */
function generatedLine(text: string): string | undefined {
  const comments = /^(?:[ \t]*(?:#.*)?\r?\n)*/.exec(text)?.[0] ?? '';
  return /^.*\b(?:generated|do not edit|managed)\b.*$/im.exec(comments)?.[0].trim();
}
