// The control groups of a test cluster's Pods. Namespaces end with their processes, and control groups do not:
// each is named after the process that made it, so that the next cluster removes what a killed one left.

import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

const ROOT = '/sys/fs/cgroup';
const PREFIX = 'weir-test-';
const PATIENCE_MS = 10_000;
/**
 * Of the processors, as `cpu.shares` and `cpu.weight` have it: all Pods of a cluster are one group beside each single process
 * of the machine, and a node's Pods are to have what they have on a machine of their own.
 */
const SHARES = { 'cpu.shares': '8192', 'cpu.weight': '800' };
const INTERVAL_MS = 50;

/** A name that no other cluster has, below which its nodes have theirs. */
export function cgroupName(suffix: string): string {
  return `${PREFIX}${process.pid}-${suffix}`;
}

/** Makes the group in every hierarchy that the machine has. */
export async function makeCgroup(name: string): Promise<void> {
  for (const hierarchy of await hierarchies()) {
    await mkdir(join(hierarchy, name), { recursive: true });
    for (const parent of ['', ...pathsTo(name).slice(0, -1)]) await hand(join(hierarchy, parent));
    for (const [file, share] of Object.entries(SHARES))
      for (const path of pathsTo(name))
        if (existsSync(join(hierarchy, path, file))) await writeFile(join(hierarchy, path, file), share);
    // Without these nothing can be put into a group of cpusets (version 1).
    for (const file of ['cpuset.cpus', 'cpuset.mems'].filter((each) => existsSync(join(hierarchy, each)))) {
      for (const path of pathsTo(name))
        await writeFile(join(hierarchy, path, file), await readFile(join(hierarchy, file)));
    }
  }
}

export async function removeCgroup(name: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  for (const hierarchy of await hierarchies()) {
    const group = join(hierarchy, name);
    while (existsSync(group)) {
      await removeTree(group);
      if (!existsSync(group)) break;
      if (Date.now() > deadline) throw new Error(`processes are left in the control group ${group}`);
      await setTimeout(INTERVAL_MS);
    }
  }
}

/** Removes what clusters left whose process is gone. */
export async function removeLeftCgroups(): Promise<void> {
  const names = new Set((await Promise.all((await hierarchies()).map((path) => readdir(path)))).flat());
  for (const name of names) {
    const owner = name.startsWith(PREFIX) ? /^\d+(?=-)/.exec(name.slice(PREFIX.length))?.[0] : undefined;
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) await removeCgroup(name);
  }
}

/** Why no control group can be made here, in one sentence. */
export async function missingCgroups(): Promise<string | undefined> {
  const name = cgroupName('probe');
  try {
    await makeCgroup(name);
    await removeCgroup(name);
    return undefined;
  } catch (error) {
    return `no control group can be made below ${ROOT}: ${String(error)}`;
  }
}

/** The mount points: one of version 2, or one for each controller of version 1, perhaps beside one of version 2. */
async function hierarchies(): Promise<string[]> {
  if (existsSync(join(ROOT, 'cgroup.controllers'))) return [ROOT];
  const found = await readdir(ROOT, { withFileTypes: true });
  // A link is a second name of another.
  return found.filter((entry) => entry.isDirectory()).map(({ name }) => join(ROOT, name));
}

/** Gives the groups below this one the controllers that it has itself (version 2). */
async function hand(group: string): Promise<void> {
  const file = join(group, 'cgroup.controllers');
  const controllers = existsSync(file) ? (await readFile(file, 'utf8')).trim() : '';
  if (controllers === '') return;
  await writeFile(join(group, 'cgroup.subtree_control'), controllers.replace(/\S+/g, '+$&'));
}

function pathsTo(name: string): string[] {
  const parts = name.split('/');
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}

async function removeTree(group: string): Promise<void> {
  const below = await readdir(group, { withFileTypes: true }).catch(() => []);
  for (const entry of below.filter((each) => each.isDirectory())) await removeTree(join(group, entry.name));
  // Busy until the kernel has let go of its last process.
  await rmdir(group).catch(() => undefined);
}
