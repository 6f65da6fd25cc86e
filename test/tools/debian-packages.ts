// Debian's packages without installing them: through an apt directory of their own, so that neither the system's
// package lists nor its packages change, and it needs no root.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onPath, run } from './command.ts';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Why this machine cannot unpack Debian's packages, in one sentence. */
export async function missingDebian(): Promise<string | undefined> {
  if ((await release()).get('ID') !== 'debian') return 'this is not Debian, whose packages they are';
  const absent = await Promise.all(
    ['apt-get', 'dpkg-deb'].map(async (name) => ((await onPath(name)) ? [] : [name])),
  );
  return absent.flat().length === 0 ? undefined : `Debian's ${absent.flat().join(' and ')} not found on PATH`;
}

/** The suite that this machine runs, such as `bookworm`; empty when it is not Debian. */
export async function ownSuite(): Promise<string> {
  return (await release()).get('VERSION_CODENAME') ?? '';
}

/** Unpacks these packages of a suite, and nothing that they depend on; `workspace` is apt's, to be removed. */
export async function unpack(
  suite: string,
  packages: readonly string[],
  workspace: string,
  root: string,
): Promise<void> {
  const options = await privateApt(workspace, suite);
  await run('apt-get', [...options, 'update'], { cwd: workspace });
  await download(options, packages, workspace, root);
}

/** Unpacks these packages and all that they depend on but for the packages that `without` matches. */
export async function unpackWithDependencies(
  suite: string,
  packages: readonly string[],
  without: RegExp,
  workspace: string,
  root: string,
): Promise<void> {
  const options = await privateApt(workspace, suite);
  await run('apt-get', [...options, 'update'], { cwd: workspace });
  const install = ['install', '--print-uris', '--no-install-recommends', '--yes', ...packages];
  const uris = await run('apt-get', [...options, ...install]);
  const names = [...uris.matchAll(/^'\S+' ([^_\s]+)_\S+\.deb /gm)].flatMap(([, name]) => name ?? []);
  await download(
    options,
    names.filter((name) => !without.test(name)),
    workspace,
    root,
  );
}

async function download(
  options: readonly string[],
  packages: readonly string[],
  workspace: string,
  root: string,
): Promise<void> {
  await run('apt-get', [...options, 'download', ...packages], { cwd: workspace });
  const files = (await readdir(workspace)).filter((file) => file.endsWith('.deb'));
  for (const file of files) await run('dpkg-deb', ['-x', join(workspace, file), root]);
}

/** Options with which apt keeps everything below the directory, and does what else the machine's settings say. */
async function privateApt(directory: string, suite: string): Promise<string[]> {
  const source = `deb [signed-by=${keyring}] ${await archive()} ${suite} main`;
  const lists = join(directory, 'lists');
  const cache = join(directory, 'cache');
  const sources = join(directory, 'sources.list');
  const settings = join(directory, 'apt.conf');
  const installed = join(directory, 'status');
  for (const path of [join(lists, 'partial'), join(cache, 'archives/partial')])
    await mkdir(path, { recursive: true });
  await writeFile(sources, `${source}\n`);
  await writeFile(installed, '');
  const lines = [
    `Dir::Etc::SourceList "${sources}";`,
    'Dir::Etc::SourceParts "/dev/null";',
    `Dir::State::lists "${lists}";`,
    // As if nothing were: what comes out is the same on every machine of the suite, and a version that this machine has
    // from elsewhere is not wanted here.
    `Dir::State::status "${installed}";`,
    `Dir::Cache "${cache}";`,
    // Root's apt downloads as _apt, which may not enter a home directory.
    'APT::Sandbox::User "root";',
    // Hooks of an update are about the system's own packages: one of Debian's container images empties their cache.
    ...['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success'].map((hook) => `#clear APT::Update::${hook};`),
  ];
  await writeFile(settings, lines.map((line) => `${line}\n`).join(''));
  return ['-qq', '-c', settings];
}

/** The archive that this machine's own apt installs Debian from; also known before its first `update`. */
async function archive(): Promise<string> {
  const uris = await run('apt-get', ['--print-uris', 'update']);
  const found = [...uris.matchAll(/^'(\S+)\/dists\/([^/']+)\/InRelease'/gm)];
  const codename = await ownSuite();
  const own =
    found.find(([, , suite]) => suite === codename) ?? found.find(([, , suite]) => suite === 'stable');
  if (own?.[1] === undefined)
    throw new Error(`apt has no source for Debian ${codename}: see /etc/apt/sources.list.d`);
  return own[1];
}

async function release(): Promise<Map<string, string>> {
  const lines = (await readFile('/etc/os-release', 'utf8').catch(() => '')).split('\n');
  return new Map(
    lines.flatMap((line) =>
      [...line.matchAll(/^(\w+)="?([^"]*)"?$/g)].map(([, key = '', value = '']) => [key, value] as const),
    ),
  );
}
