// The weir under test, as a process of its own: the registry and the agent of one machine.

import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { start } from '../tools/child.ts';
import { run } from '../tools/command.ts';

export type Weir = {
  /** Its log: one JSON object a line, of which one for each request that it answered. */
  readonly lines: readonly string[];
  /** Asks it to end, as the machine's init does; the exit code. */
  stop: (signal?: NodeJS.Signals) => Promise<number | NodeJS.Signals>;
};

export type WeirOptions = { config: string; data: string; listen: string; certs: string; state: string };

const main = join(import.meta.dirname, '..', '..', 'cli', 'main.ts');
const patience = 30_000;
const interval = 20;

/** Starts `weir standalone` and waits until it says that it is ready. */
export async function startWeir({ config, data, listen, certs, state }: WeirOptions): Promise<Weir> {
  const paths = ['--config', config, '--data', data, '--certs-dir', certs, '--state-dir', state];
  return start(process.execPath, [main, 'standalone', ...paths, '--listen', listen], {
    ready: (child) =>
      eventually(`weir is ready on ${listen}`, async () => {
        child.mustRun();
        const answer = await fetch(`http://${listen}/readyz`).catch(() => undefined);
        await answer?.body?.cancel();
        return answer?.status === 200;
      }),
  });
}

export async function rollBack(certs: string, state: string): Promise<void> {
  await run(process.execPath, [main, 'rollback', '--certs-dir', certs, '--state-dir', state]);
}

/** Waits for an effect that no event announces. */
export async function eventually(effect: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + patience;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited ${patience} ms in vain: ${effect}`);
    await setTimeout(interval);
  }
}
