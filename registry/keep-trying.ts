import { setTimeout } from 'node:timers/promises';

/** A store that fails is offered something again after these pauses. */
const PAUSES_MS = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000];

/**
 * Does the work until it succeeds, for about two minutes.
 *
 * @param onFailed is told of every failure that another try follows.
 * @throws what the last try throws, or the signal's reason.
 */
export async function keepTrying(
  work: () => Promise<void>,
  onFailed: (error: unknown, pause: number) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const pause of PAUSES_MS) {
    try {
      await work();
      return;
    } catch (error) {
      onFailed(error, pause);
    }
    await setTimeout(pause, undefined, { signal });
  }
  await work();
}
