// Bases for the Dockerfile, made of this machine's files, for where the registries of the real ones are out of
// reach. As in those, Node is at /nodejs/bin/node, and the base of the final image has no shell and no package
// manager, nor, so that nothing gets used to it, a /tmp.

import { chmod, cp, mkdir, realpath, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../tools/command.ts';

/** Directories to be copied into an empty image, and over it for the stage that builds. */
export interface BaseTrees {
  readonly base: string;
  readonly tools: string;
}

const node = join(import.meta.dirname, '..', '..', 'node_modules', 'node', 'bin', 'node');
const certificates = '/etc/ssl/certs/ca-certificates.crt';
const users =
  'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n';
const groups = 'root:x:0:\nnonroot:x:65532:\n';

export async function makeBaseTrees(directory: string): Promise<BaseTrees> {
  const base = join(directory, 'base');
  const tools = join(directory, 'tools');
  await copy(node, join(base, 'nodejs', 'bin', 'node'));
  const libraries = await librariesOf(node);
  await copyEach(libraries, base);
  await mkdir(join(base, 'home', 'nonroot'), { recursive: true });
  await mkdir(join(base, 'etc'), { recursive: true });
  await writeFile(join(base, 'etc', 'passwd'), users);
  await writeFile(join(base, 'etc', 'group'), groups);

  // What `RUN npm …` takes: a shell, npm, and the `env` of its first line.
  const programs = ['/bin/sh', '/usr/bin/env'];
  const more = (await Promise.all(programs.map(librariesOf))).flat();
  await copyEach([...programs, ...more.filter((file) => !libraries.includes(file))], tools);
  await copyEach([certificates], tools).catch(() => undefined);
  const local = join(tools, 'usr', 'local');
  await cp(await npmPackage(), join(local, 'lib', 'node_modules', 'npm'), { recursive: true });
  await mkdir(join(local, 'bin'));
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin', 'npm'));
  await symlink('/nodejs/bin/node', join(local, 'bin', 'node'));
  await mkdir(join(tools, 'root'));
  await mkdir(join(tools, 'tmp'));
  await chmod(join(tools, 'tmp'), 0o1777);
  return { base, tools };
}

/** How the trees become images. npm trusts whom this machine trusts: a company's own registry may need it. */
export const baseDockerfiles = {
  base: 'FROM scratch\nCOPY . /\n',
  tools: `FROM localhost/weir-base\nENV PATH=/usr/local/bin:/usr/bin:/bin NODE_EXTRA_CA_CERTS=${certificates}\nCOPY . /\n`,
};

async function librariesOf(program: string): Promise<string[]> {
  const listed = await run('ldd', [program]);
  return [...listed.matchAll(/(?:=> |^\s*)(\/\S+)/gm)].flatMap(([, file]) => file ?? []);
}

/** The directory of the npm that is on PATH, of which every `npm-cli.js` is a part. */
async function npmPackage(): Promise<string> {
  const command = (await run('sh', ['-c', 'command -v npm'])).trim();
  return dirname(dirname(await realpath(command)));
}

async function copyEach(files: readonly string[], root: string): Promise<void> {
  for (const file of files) await copy(file, join(root, file));
}

async function copy(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await cp(await realpath(from), to);
}
