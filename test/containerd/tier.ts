// What the tier of real containerds needs from the machine, and how to get it ready before its tests.

import { isMade, provideAll, type Recipe } from '../tools/cache.ts';
import { CommandError, onPath, run } from '../tools/command.ts';
import { missingDebian } from '../tools/debian-containerd.ts';
import { DOCKERDS, debianProgram, SKOPEO } from '../tools/debian-programs.ts';
import { goModule, missingGo } from '../tools/go-module.ts';
import { namespaceCommand, recipe, type Version, versions } from './containerd.ts';

const commands = ['unshare', 'nsenter', 'setpriv', 'mount'];

/** Why this machine cannot run the tier, or undefined when it can. */
export async function missing(): Promise<string | undefined> {
  if (process.platform !== 'linux') return `containerd needs Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'containerd mounts what it unpacks, which needs root';
  const absent = await Promise.all(
    commands.map(async (command) => ((await onPath(command)) ? [] : [command])),
  );
  if (absent.flat().length > 0) return `${absent.flat().join(', ')} (util-linux) not found on PATH`;
  const refusal = await namespaceRefusal();
  if (refusal !== undefined) return `this machine grants no mount namespace: ${refusal}`;
  return goRecipes().every(isMade) ? undefined : missingGo();
}

/** The containerd versions that this machine cannot run, each with the reason. */
export async function missingVersions(): Promise<Map<Version, string>> {
  const lacking = new Map<Version, string>();
  for (const version of versions) {
    if (version === '2.3' || isMade(recipe(version))) continue;
    const reason = await missingDebian();
    if (reason !== undefined) lacking.set(version, reason);
  }
  return lacking;
}

/** Builds and unpacks what is not there yet, with one line for each. */
export async function prepare(): Promise<void> {
  const lacking = await missingVersions();
  const wanted = versions.filter((version) => !lacking.has(version)).map(recipe);
  const programs = [SKOPEO, ...Object.values(DOCKERDS)].map(debianProgram);
  const debian = (await missingDebian()) === undefined ? programs : [];
  await provideAll([...goRecipes(), ...wanted, ...debian]);
}

function goRecipes(): Recipe[] {
  return [goModule('containerd'), goModule('registry')];
}

async function namespaceRefusal(): Promise<string | undefined> {
  const { command, args } = namespaceCommand('true');
  return run(command, args).then(
    () => undefined,
    (error: unknown) => (error instanceof CommandError ? error.reason : String(error)),
  );
}
