import { findProcesses, flagOf, type HostProcess } from '../runtimes/host-processes.ts';
import type { NodeSight } from '../runtimes/node-sight.ts';
import { Refusal } from './refusal.ts';

/**
 * The containerd that the kubelet asks, among those that run on the node.
 *
 * @throws Refusal when it is not the only one that it can be.
 */
export async function findContainerd(root: string, sight: NodeSight): Promise<HostProcess> {
  const remedy = 'Set config_path by hand and restart containerd.';
  const processes = await findProcesses(root, ['containerd']);
  if (processes === undefined)
    throw new Refusal(`the processes of the node cannot be seen (no /proc below its root)`, remedy);
  // Docker's own has a configuration of its own, without CRI.
  const found = processes.filter(({ args }) => !args.some((arg) => arg.includes('/docker/containerd/')));
  const [only, ...others] = found.length > 1 ? found.filter((process) => isAsked(process, sight)) : found;
  if (only === undefined || others.length > 0)
    throw new Refusal(
      found.length === 0
        ? 'no containerd runs on the node'
        : `${found.length} containerds run on the node, and which one the kubelet asks is not to be told`,
      remedy,
    );
  return only;
}

/** Which `--config` it was started with. */
export function configFlagOf(process: HostProcess): string | undefined {
  return flagOf(process, '--config', '-c');
}

function isAsked(process: HostProcess, { socket, configFiles }: NodeSight): boolean {
  const address = flagOf(process, '--address', '-a')?.replace(/^\/var\/run\//, '/run/');
  if (address !== undefined) return address === socket?.value;
  const config = configFlagOf(process);
  return config === undefined || config === configFiles[0];
}
