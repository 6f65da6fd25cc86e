// The containerds that clusters still run, 1.6 and 1.7, are not buildable as Go modules of today's Go, but
// Debian ships them.

import { createHash } from 'node:crypto';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from './cache.ts';
import * as debian from './debian-packages.ts';

export type DebianSuite = 'bookworm' | 'trixie';

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
      const root = join(apt, 'root');
      await debian.unpack(suite, ['containerd'], apt, root);
      for (const command of commands) await rename(join(root, 'usr/bin', command), join(directory, command));
      await rm(apt, { recursive: true });
    },
  };
}

/** Why this machine cannot have them, in one sentence. */
export async function missingDebian(): Promise<string | undefined> {
  const reason = await debian.missingDebian();
  return reason && `containerd 1.6 and 1.7 are from Debian's packages: ${reason}`;
}
