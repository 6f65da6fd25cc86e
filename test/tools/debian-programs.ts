// Programs that nodes have besides containerd, as Debian ships them: single commands out of packages that are
// unpacked and never installed, with the libraries that the machine has.

import { createHash } from 'node:crypto';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isMade, provide, type Recipe } from './cache.ts';
import { CommandError, run } from './command.ts';
import { missingDebian, unpack } from './debian-packages.ts';

export interface DebianProgram {
  readonly suite: 'bookworm' | 'trixie';
  readonly package: string;
  /** Below the root of the package. */
  readonly path: string;
}

/** containers/image 5.22, which CRI-O has as a library. */
export const SKOPEO: DebianProgram = { suite: 'bookworm', package: 'skopeo', path: 'usr/bin/skopeo' };

/** Docker 20.10 and 26.1. */
export const DOCKERDS: Readonly<Record<'20.10' | '26.1', DebianProgram>> = {
  '20.10': { suite: 'bookworm', package: 'docker.io', path: 'usr/sbin/dockerd' },
  '26.1': { suite: 'trixie', package: 'docker.io', path: 'usr/sbin/dockerd' },
};

/** A directory with this one program in it. */
export function debianProgram({ suite, package: name, path }: DebianProgram): Recipe {
  return {
    name: `${name}-${suite}`,
    key: createHash('sha256')
      .update(JSON.stringify([suite, process.arch, name, path]))
      .digest('hex')
      .slice(0, 16),
    make: async (directory) => {
      const apt = join(directory, 'apt');
      const root = join(apt, 'root');
      await unpack(suite, [name], apt, root);
      await rename(join(root, path), join(directory, commandOf(path)));
      await rm(apt, { recursive: true });
    },
  };
}

/** The program itself, made now if it is not there yet. */
export async function provideProgram(program: DebianProgram): Promise<string> {
  return join(await provide(debianProgram(program)), commandOf(program.path));
}

/** Why this machine cannot run it, in one sentence. */
export async function missingProgram(program: DebianProgram): Promise<string | undefined> {
  if (!isMade(debianProgram(program))) {
    const reason = await missingDebian();
    if (reason !== undefined) return `${program.package} is from Debian's packages: ${reason}`;
  }
  try {
    await run(await provideProgram(program), ['--version']);
    return undefined;
  } catch (error) {
    // Most likely a library of another package.
    const reason = error instanceof CommandError ? error.reason : String(error);
    return `${program.package} of Debian ${program.suite} does not run here: ${reason}`;
  }
}

function commandOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
