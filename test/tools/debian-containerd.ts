// The containerds that clusters still run, 1.6 and 1.7, are not buildable as Go modules of today's Go, but
// Debian ships them. They are unpacked through an apt directory of their own: neither the system's package
// lists nor its packages change, and it needs no root.

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from './cache.ts';
import { onPath, run } from './command.ts';

export type DebianSuite = 'bookworm' | 'trixie';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const commands = ['containerd', 'ctr'];

export function debianContainerd(suite: DebianSuite): Recipe {
  return {
    name: `containerd-${suite}`,
    key: createHash('sha256')
      .update(JSON.stringify([suite, process.arch, commands]))
      .digest('hex')
      .slice(0, 16),
    make: async (directory) => {
      const apt = join(directory, 'apt');
      const options = await privateApt(apt, `deb [signed-by=${keyring}] ${await archive()} ${suite} main`);
      await run('apt-get', [...options, 'update'], { cwd: apt });
      await run('apt-get', [...options, 'download', 'containerd'], { cwd: apt });
      const packages = (await readdir(apt)).filter((file) => file.endsWith('.deb'));
      for (const file of packages) await run('dpkg-deb', ['-x', join(apt, file), join(apt, 'root')]);
      for (const command of commands)
        await rename(join(apt, 'root/usr/bin', command), join(directory, command));
      await rm(apt, { recursive: true });
    },
  };
}

/** Why this machine cannot unpack Debian's packages, in one sentence. */
export async function missingDebian(): Promise<string | undefined> {
  if ((await release()).get('ID') !== 'debian')
    return "containerd 1.6 and 1.7 are Debian's, and this is not Debian";
  const absent = await Promise.all(
    ['apt-get', 'dpkg-deb'].map(async (name) => ((await onPath(name)) ? [] : [name])),
  );
  return absent.flat().length === 0 ? undefined : `Debian's ${absent.flat().join(' and ')} not found on PATH`;
}

/** Options with which apt keeps everything below the directory, and does what else the machine's settings say. */
async function privateApt(directory: string, source: string): Promise<string[]> {
  const lists = join(directory, 'lists');
  const cache = join(directory, 'cache');
  const sources = join(directory, 'sources.list');
  const settings = join(directory, 'apt.conf');
  for (const path of [join(lists, 'partial'), join(cache, 'archives/partial')])
    await mkdir(path, { recursive: true });
  await writeFile(sources, `${source}\n`);
  const lines = [
    `Dir::Etc::SourceList "${sources}";`,
    'Dir::Etc::SourceParts "/dev/null";',
    `Dir::State::lists "${lists}";`,
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
  const codename = (await release()).get('VERSION_CODENAME');
  const own =
    found.find(([, , suite]) => suite === codename) ?? found.find(([, , suite]) => suite === 'stable');
  if (own?.[1] === undefined)
    throw new Error(`apt has no source for Debian ${codename ?? ''}: see /etc/apt/sources.list.d`);
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
