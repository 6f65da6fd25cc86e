// What the tier of the OCI conformance suite needs from the machine, and how to get it ready before its tests.

import { isMade, provideAll } from '../tools/cache.ts';
import { onPath } from '../tools/command.ts';
import { goModule, missingGo } from '../tools/go-module.ts';

/** Why this machine cannot run the tier, or undefined when it can. */
export async function missing(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'its servers end with their test, which needs Linux';
  if (!(await onPath('setpriv'))) return 'setpriv (util-linux) not found on PATH';
  return recipes().every(isMade) ? undefined : missingGo();
}

/** Builds what is not there yet, with one line for each. */
export async function prepare(): Promise<void> {
  await provideAll(recipes());
}

function recipes() {
  return [goModule('registry'), goModule('artifacts'), goModule('conformance')];
}
