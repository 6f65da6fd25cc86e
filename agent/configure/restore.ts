import type { Logger } from 'pino';
import { clearDump } from './config-dump.ts';
import { Journal } from './journal.ts';
import { type PutBack, putBack } from './put-back.ts';

/**
 * Takes out of the runtime's configuration what weir set there. The runtime is not restarted: it goes on with what it
 * has, a directory in which nothing of weir is any more, until it is restarted for another reason. Harmless when it is
 * done twice.
 *
 * @returns how far the file is as it was; `undefined` where weir never changed one.
 * @throws Error when it cannot be put back.
 */
export async function restoreRuntimeConfiguration(options: {
  /** Where the node's file system is mounted. */
  readonly root: string;
  /** As it was given to `configureRuntime`. */
  readonly stateDir: string;
  readonly log: Logger;
}): Promise<PutBack | undefined> {
  const { root, log } = options;
  const journal = await Journal.open(options);
  await clearDump({ root, folder: journal.folder });
  const { entry } = journal;
  if (entry === undefined) {
    await journal.remove();
    return undefined;
  }
  // What failed was put back then.
  const end = entry.step === 'failed' ? 'unneeded' : await putBack(root, journal, entry);
  log.info({ file: entry.path, end }, "the runtime's configuration is restored, without a restart");
  await journal.remove();
  return end;
}
