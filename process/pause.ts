import { setTimeout } from 'node:timers/promises';

/**
 * Resolves after this many milliseconds, or as soon as the signal is aborted.
 *
 * @param options.ref `false`: waiting is no reason for the program to go on.
 */
export async function pauseUnlessStopped(
  milliseconds: number,
  signal: AbortSignal,
  { ref = true }: { readonly ref?: boolean } = {},
): Promise<void> {
  await setTimeout(milliseconds, undefined, { signal, ref }).catch(() => undefined);
}
