// What the tier of whole clusters needs from the machine, and how to get it ready before its tests.

import { s3ServerTool } from '../s3/s3-server-tools.ts';
import { isMade, provideAll, type Recipe } from '../tools/cache.ts';
import { CommandError, onPath, run } from '../tools/command.ts';
import { goModule, missingGo } from '../tools/go-module.ts';
import { missingNodePrograms, nodePrograms } from '../tools/node-programs.ts';
import { missingCgroups } from './cgroups.ts';
import { missingOverlay } from './overlay.ts';

/** Commands and where Debian has them. */
const commands = new Map([
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
  ['setpriv', 'util-linux'],
  ['mount', 'mount'],
  ['hostname', 'hostname'],
  ['openssl', 'openssl'],
]);

/** Why this machine cannot run the tier, or undefined when it can. */
export async function missing(): Promise<string | undefined> {
  if (process.platform !== 'linux') return `Kubernetes' nodes need Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'nodes make namespaces, mounts and control groups, which needs root';
  const found = await Promise.all(
    [...commands].map(async ([command, from]) => ((await onPath(command)) ? [] : [`${command} (${from})`])),
  );
  if (found.flat().length > 0) return `${found.flat().join(', ')} not found on PATH`;
  const programs = await nodePrograms();
  const unpacked = programs !== undefined && isMade(programs);
  return (
    (await namespaceRefusal()) ??
    (await missingOverlay()) ??
    (await missingCgroups()) ??
    (unpacked ? undefined : await missingNodePrograms()) ??
    (goRecipes().every(isMade) ? undefined : await missingGo())
  );
}

/** Builds and unpacks what is not there yet, with one line for each. */
export async function prepare(): Promise<void> {
  const programs = await nodePrograms();
  await provideAll([...goRecipes(), ...(programs === undefined ? [] : [programs])]);
}

function goRecipes(): Recipe[] {
  const modules = (['kubernetes', 'helm', 'containerd', 'workload'] as const).map(goModule);
  return [...modules, s3ServerTool('minio')];
}

async function namespaceRefusal(): Promise<string | undefined> {
  const namespaces = ['--mount', '--pid', '--net', '--uts', '--ipc', '--fork'];
  return run('unshare', [...namespaces, 'mount', '-t', 'proc', 'proc', '/proc']).then(
    () => undefined,
    (error: unknown) =>
      `this machine grants no namespaces: ${error instanceof CommandError ? error.reason : String(error)}`,
  );
}
