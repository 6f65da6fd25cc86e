import type { HostProcess } from '../runtimes/host-processes.ts';
import type { NodeSight } from '../runtimes/node-sight.ts';
import { viewNode } from '../runtimes/node-view.ts';
import { findContainerd } from './containerd-process.ts';
import { hashOf } from './entry.ts';
import { Journal } from './journal.ts';
import { Refusal } from './refusal.ts';
import { refuseAgain } from './refuse-again.ts';
import { findTarget, restartsItself, type Target } from './target.ts';

/** What is to be edited, and for whom. */
export interface Proposal {
  readonly target: Target;
  /** `undefined` where it does not run just now, and need not to. */
  readonly containerd: HostProcess | undefined;
  /** Hash of all of the runtime's files as they are. */
  readonly situation: string;
}

/**
 * What `configureRuntime` would edit on a node, as far as its files tell; `undefined` where no `config_path` is missing.
 *
 * @throws Refusal when it would not.
 */
export async function previewEdit(options: {
  readonly root: string;
  readonly stateDir: string;
  readonly sight: NodeSight;
}): Promise<Target | undefined> {
  return (await propose(options.root, options.sight, await Journal.open(options)))?.target;
}

/** @throws Refusal when it cannot be edited, or is not to be again. */
export async function propose(
  root: string,
  sight: NodeSight,
  journal: Journal,
): Promise<Proposal | undefined> {
  if (sight.missingConfigPath === undefined) return undefined;
  const containerd = await findContainerd(root, sight).catch((error: unknown) => {
    if (restartsItself(sight) && error instanceof Refusal) return undefined;
    throw error;
  });
  const target = await findTarget(root, sight, containerd);
  if (target === undefined) return undefined;
  const situation = await situationOf(root, sight, target);
  refuseAgain(journal, situation);
  return { target, containerd, situation };
}

async function situationOf(root: string, { configFiles }: NodeSight, { path }: Target): Promise<string> {
  const view = viewNode(root);
  const paths = [...new Set([...configFiles, path])];
  const files = await Promise.all(paths.map(async (one) => [one, (await view.file(one))?.text ?? null]));
  return hashOf(JSON.stringify(files));
}
