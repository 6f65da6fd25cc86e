// What a Kubernetes node has from its distribution: runc, and the programs that set up its network. On Debian
// they are unpacked, not installed: the nodes of a test see them over `/usr`, and nobody else does.

import { createHash } from 'node:crypto';
import { cp, mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from './cache.ts';
import { onPath } from './command.ts';
import { missingDebian, ownSuite, unpackWithDependencies } from './debian-packages.ts';

/** Commands and the Debian packages that have them. */
const packages = new Map([
  ['runc', 'runc'],
  ['ip', 'iproute2'],
  ['iptables', 'iptables'],
  ['nft', 'nftables'],
]);
// The machine's own: a program cannot have another C library than its loader.
const without = /^(?:libc6|libgcc-s1|gcc-\d+-base|debconf)$/;
const iptables = ['iptables', 'ip6tables'].flatMap((name) => [name, `${name}-save`, `${name}-restore`]);

/** A tree to lay over `/usr`, or undefined when the machine has all of it. */
export async function nodePrograms(): Promise<Recipe | undefined> {
  if ((await absent()).length === 0) return undefined;
  const suite = await ownSuite();
  const wanted = [...packages.values()];
  return {
    name: 'node-programs',
    key: createHash('sha256')
      .update(JSON.stringify([suite, process.arch, wanted, without.source, iptables]))
      .digest('hex')
      .slice(0, 16),
    make: async (directory) => {
      const apt = join(directory, 'apt');
      const root = join(apt, 'root');
      const usr = join(directory, 'usr');
      await unpackWithDependencies(suite, wanted, without, apt, root);
      await mkdir(usr);
      const trees = await readdir(root);
      await cp(join(root, 'usr'), usr, { recursive: true, verbatimSymlinks: true });
      // Some packages still have files where links to /usr are.
      for (const tree of ['bin', 'sbin', 'lib', 'lib64'].filter((name) => trees.includes(name)))
        await cp(join(root, tree), join(usr, tree), { recursive: true, verbatimSymlinks: true });
      await rm(join(usr, 'share'), { recursive: true, force: true });
      // Debian chooses between two kinds when it installs them.
      for (const name of iptables) await symlink('xtables-nft-multi', join(usr, 'sbin', name));
      await rm(apt, { recursive: true });
    },
  };
}

/** Why a node has no runc and no network on this machine, in one sentence. */
export async function missingNodePrograms(): Promise<string | undefined> {
  const lacking = await absent();
  if (lacking.length === 0) return undefined;
  const reason = await missingDebian();
  const names = lacking.map((command) => packages.get(command) ?? command);
  return reason && `install the package(s) ${names.join(', ')} (${reason})`;
}

async function absent(): Promise<string[]> {
  const found = await Promise.all([...packages.keys()].map(onPath));
  return [...packages.keys()].filter((_, index) => found[index] === false);
}
