// What the tier of real S3 servers needs from the machine, and how to get it ready before its tests.

import { isMade, provideAll } from '../tools/cache.ts';
import { onPath } from '../tools/command.ts';
import { missingGo } from '../tools/go-module.ts';
import { s3ServerNames, s3ServerTool } from './s3-server-tools.ts';

/** Why this machine cannot run the tier, or undefined when it can. */
export async function missing(): Promise<string | undefined> {
  if (!(await onPath('setpriv'))) return 'setpriv (util-linux) not found on PATH';
  return s3ServerNames.map(s3ServerTool).every(isMade) ? undefined : missingGo();
}

/** Builds what is not there yet, with one line for each. */
export async function prepare(): Promise<void> {
  await provideAll(s3ServerNames.map(s3ServerTool));
}
