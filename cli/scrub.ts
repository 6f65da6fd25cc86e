import process from 'node:process';
import type { Logger } from 'pino';
import { scrub } from '../registry/scrub.ts';
import { openStore } from './open-store.ts';

/** `weir registry scrub` */
export async function runScrub(options: {
  readonly store: string;
  readonly caDir?: string;
  readonly dryRun?: boolean;
  readonly log: Logger;
  readonly stop: AbortSignal;
}): Promise<void> {
  const { log, caDir, stop } = options;
  const repair = options.dryRun !== true;
  const opened = await openStore(options.store, {
    log,
    mustExist: true,
    ...(caDir === undefined ? {} : { caDirectory: caDir }),
  });
  try {
    const { blobs, bytes, damaged } = await scrub(opened.store, {
      repair,
      signal: stop,
      onDamage: ({ digest, why, outcome }) => process.stdout.write(`${outcome} ${digest}: ${why}\n`),
    });
    const unreadable = damaged.filter(({ outcome }) => outcome === 'unreadable').length;
    const also = unreadable === 0 ? '' : `, ${unreadable} could not be read`;
    process.stdout.write(
      `${blobs} blobs with ${bytes} bytes were compared with their digests; ${damaged.length - unreadable} are damaged${also}\n`,
    );
    if (unreadable > 0)
      throw new Error('blobs that could not be read were left; look at the store, and run it again');
    if (!repair && damaged.length > 0)
      throw new Error(
        'damaged blobs were found and left; run it without --dry-run to have them fetched again',
      );
  } finally {
    await opened.close();
  }
}
