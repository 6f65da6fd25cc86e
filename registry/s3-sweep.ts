import type { Logger } from 'pino';
import { pauseUnlessStopped } from '../process/pause.ts';

/** No upload from a local file lasts so long. */
const STALE_AFTER_MS = 24 * 3_600_000;
const SWEEP_EVERY_MS = 24 * 3_600_000;
const RETRY_AFTER_MS = 3_600_000;

/**
 * Sweeps now and once a day, until the signal aborts. Replicas need not agree on it: an upload that another one
 * has aborted is none any more.
 *
 * @param sweep aborts the uploads that were begun before a time, and tells how many there were.
 */
export async function sweepRegularly(
  sweep: (before: Date) => Promise<number>,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    let pause = SWEEP_EVERY_MS;
    try {
      const aborted = await sweep(new Date(Date.now() - STALE_AFTER_MS));
      if (aborted > 0) log.info({ aborted }, 'aborted uploads that a killed process had left');
    } catch (error) {
      pause = RETRY_AFTER_MS;
      if (!signal.aborted) log.warn({ err: error }, 'uploads that killed processes left were not swept');
    }
    // It rejects when the signal aborts, which the loop sees.
    await pauseUnlessStopped(pause, signal, { ref: false });
  }
}
