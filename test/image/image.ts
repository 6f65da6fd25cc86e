// The image of the Dockerfile, built for real, once for the same sources.

import { createHash } from 'node:crypto';
import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import manifest from '../../package.json' with { type: 'json' };
import { location, provide, type Recipe } from '../tools/cache.ts';
import { run } from '../tools/command.ts';
import { baseDockerfiles, makeBaseTrees } from './base.ts';

const root = join(import.meta.dirname, '..', '..');
/** Images of sources that were edited since are kept for so long. */
const KEPT_MS = 24 * 60 * 60 * 1000;

/** As it is called in the layout's index. */
export const IMAGE_NAME = 'weir';

/** The directory of an OCI image layout that holds the image, and nothing else; built now if it is not there yet. */
export async function buildImage(): Promise<string> {
  const recipe = imageRecipe();
  const layout = await provide(recipe);
  await removeOld(recipe);
  return layout;
}

export function imageRecipe(): Recipe {
  const files = sources();
  const key = keyOf(files, root);
  return { name: 'image', key, make: (layout) => build(layout, files, key) };
}

/** The files that the builder is sent, and those that say how it is called. */
function sources(): string[] {
  const allowed = readFileSync(join(root, '.dockerignore'), 'utf8')
    .split('\n')
    .flatMap((line) => (line.startsWith('!') ? [line.slice(1)] : []));
  const patterns = allowed.flatMap((path) => [path, `${path}/**`]);
  const ours = ['.dockerignore', 'Dockerfile', 'test/image/base.ts', 'test/image/image.ts'];
  const files = globSync([...patterns, ...ours], { cwd: root });
  return files.filter((file) => statSync(join(root, file)).isFile()).toSorted();
}

function keyOf(files: readonly string[], directory: string): string {
  const hash = createHash('sha256').update(process.arch);
  for (const file of files) hash.update(`\0${file}\0`).update(readFileSync(join(directory, file)));
  return hash.digest('hex').slice(0, 16);
}

async function build(layout: string, files: readonly string[], key: string): Promise<void> {
  const work = join(layout, '.work');
  const context = join(work, 'context');
  // An edit meanwhile must not get into an image that is kept under the key of the sources before it.
  for (const file of files) await cp(join(root, file), join(context, file));
  if (keyOf(files, context) !== key) throw new Error('the sources of the image changed while it was begun');
  const storage = ['--root', join(work, 'root'), '--runroot', join(work, 'run'), '--storage-driver', 'vfs'];
  const isolated = ['--isolation', 'chroot', '--network', 'host', '--pull-never', '--timestamp', '0'];
  const buildah = (command: string, ...args: readonly string[]) =>
    run('buildah', [...storage, command, '--quiet', ...args]);
  const bud = (...args: readonly string[]) => buildah('bud', ...isolated, ...args);
  const trees = await makeBaseTrees(work);
  for (const name of ['base', 'tools'] as const) {
    const file = join(work, `${name}.Dockerfile`);
    await writeFile(file, baseDockerfiles[name]);
    await bud('--file', file, '--tag', `localhost/weir-${name}`, trees[name]);
  }
  const npmrc = join(work, 'npmrc');
  await writeFile(npmrc, await npmSettings(), { mode: 0o600 });
  const given = {
    BASE: 'localhost/weir-base',
    BUILD_BASE: 'localhost/weir-tools',
    VERSION: manifest.version,
    REVISION: key,
  };
  const buildArguments = Object.entries(given).flatMap(([name, value]) => [
    '--build-arg',
    `${name}=${value}`,
  ]);
  await bud(...buildArguments, '--secret', `id=npmrc,src=${npmrc}`, '--tag', 'localhost/weir', context);
  await buildah('push', 'localhost/weir', `oci:${layout}:${IMAGE_NAME}`);
  await rm(work, { recursive: true });
}

/** The user's npmrc, which may hold how to log in, with the registry that is in force here. */
async function npmSettings(): Promise<string> {
  const file = await npmSetting('userconfig');
  const settings = existsSync(file) ? await readFile(file, 'utf8') : '';
  return `${settings}\nregistry=${await npmSetting('registry')}\n`;
}

async function npmSetting(name: string): Promise<string> {
  return (await run('npm', ['config', 'get', name], { cwd: root })).trim();
}

/** Removes the images of other sources, which every edit leaves behind. */
async function removeOld(recipe: Recipe): Promise<void> {
  const cache = dirname(location(recipe));
  for (const name of await readdir(cache)) {
    const path = join(cache, name);
    if (!/^image-[0-9a-f]{16}$/.test(name) || path === location(recipe)) continue;
    if (Date.now() - (await stat(path)).mtimeMs > KEPT_MS) await rm(path, { recursive: true, force: true });
  }
}
