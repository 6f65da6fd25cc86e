// Waiting for effects that no event announces: what a cluster does, it does when it gets to it.

import { setTimeout } from 'node:timers/promises';

const PATIENCE_MS = 60_000;
const INTERVAL_MS = 200;

/** Looks until it holds; what it throws counts as not yet, and is told when the patience is over. */
export async function eventually(
  effect: string,
  holds: () => boolean | Promise<boolean>,
  patienceMs = PATIENCE_MS,
  intervalMs = INTERVAL_MS,
): Promise<void> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    let problem: unknown;
    try {
      if (await holds()) return;
    } catch (error) {
      problem = error;
    }
    if (Date.now() > deadline)
      throw new Error(`waited ${patienceMs / 1000} s in vain: ${effect}`, { cause: problem });
    await setTimeout(intervalMs);
  }
}
