// A directory for one test process, which carries that process's id: what a killed test left is found by the next.

import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const prefix = 'weir-scratch-';

export async function makeScratch(): Promise<string> {
  await removeLeftovers();
  return mkdtemp(join(tmpdir(), `${prefix}${process.pid}-`));
}

export async function removeScratch(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
}

async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const owner = name.startsWith(prefix) ? /^\d+(?=-)/.exec(name.slice(prefix.length))?.[0] : undefined;
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) await removeScratch(join(tmpdir(), name));
  }
}
