import { setTimeout } from 'node:timers/promises';
import { messageOf } from '../../process/file-problem.ts';
import type { Workload } from '../cri-workload.ts';

/** Asks the runtime how it is. Rejects when it does not answer. */
export type AskWorkload = (signal: AbortSignal) => Promise<Workload>;

/** What a healthy runtime is to say. */
export interface Expected {
  /** What ran before. */
  readonly running: readonly string[];
  /** Its `config_path`, where it tells it. */
  readonly configPath: string;
}

const LOOK_MS = 500;

/**
 * Waits until a runtime that was restarted serves again, and is what is expected of it.
 *
 * @throws Error that says what it is not, when it still is not after so many milliseconds.
 */
export async function untilHealthy(
  ask: AskWorkload,
  expected: Expected | undefined,
  { patienceMs, signal }: { readonly patienceMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const until = performance.now() + patienceMs;
  for (;;) {
    const problem = await problemOf(ask, signal, expected);
    if (problem === undefined) return;
    if (performance.now() > until) throw new Error(`${problem}, ${patienceMs / 1000} s after its restart`);
    await setTimeout(Math.min(LOOK_MS, patienceMs), undefined, { signal });
  }
}

/** Why the runtime does not serve, or is not what is expected of it; `undefined` when it does and is. */
export async function problemOf(
  ask: AskWorkload,
  signal: AbortSignal,
  expected?: Expected,
): Promise<string | undefined> {
  try {
    const found = await ask(signal);
    if (found.notReady !== undefined) return `the runtime says that it is not ready (${found.notReady})`;
    return expected && difference(found, expected);
  } catch (error) {
    signal.throwIfAborted();
    return `the runtime does not answer over CRI (${messageOf(error)})`;
  }
}

/** Some end by themselves in just these seconds, or are ended by the kubelet; a restart that ends them ends nearly all. */
const MAX_ENDED = 1 / 4;

function difference({ running, configPath }: Workload, expected: Expected): string | undefined {
  if (configPath !== undefined && configPath !== expected.configPath)
    return `the runtime goes by config_path "${configPath}"`;
  const before = new Set(expected.running);
  const ended = before.difference(new Set(running));
  return ended.size > before.size * MAX_ENDED
    ? `${ended.size} of ${before.size} containers and sandboxes that ran before do not run`
    : undefined;
}
