// What the tier of the container image needs from the machine, and how to get it ready before its tests.

import { isMade } from '../tools/cache.ts';
import { onPath } from '../tools/command.ts';
import { namespaceRefusal } from './container.ts';
import { buildImage, imageRecipe } from './image.ts';

const runs = ['unshare', 'setpriv', 'chroot', 'mount', 'tar'];
const builds = ['buildah', 'ldd', 'npm'];

/** Why this machine cannot run the tier, or undefined when it can. */
export async function missing(): Promise<string | undefined> {
  if (process.platform !== 'linux') return `containers need Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'building and running an image needs root';
  const wanted = isMade(imageRecipe()) ? runs : [...runs, ...builds];
  const absent = await Promise.all(wanted.map(async (command) => ((await onPath(command)) ? [] : [command])));
  if (absent.flat().length > 0) return `${absent.flat().join(', ')} not found on PATH`;
  const refusal = await namespaceRefusal();
  return refusal === undefined ? undefined : `this machine grants no namespaces: ${refusal}`;
}

/** Builds the image unless it is there. */
export async function prepare(): Promise<void> {
  if (isMade(imageRecipe())) return;
  const started = performance.now();
  await buildImage();
  process.stdout.write(`image: built in ${Math.round((performance.now() - started) / 1000)} s\n`);
}
