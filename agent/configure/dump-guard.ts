import { messageOf } from '../../process/file-problem.ts';
import type { Attempt } from './attempt.ts';
import { UnacceptedError } from './config-dump.ts';
import { differenceOfEdit, differenceOfReadings } from './dump-reading.ts';
import type { Entry } from './entry.ts';
import { Refusal } from './refusal.ts';
import type { Target } from './target.ts';

type Work = Pick<Attempt, 'askDump' | 'restarter' | 'log' | 'signal'>;

/** containerd does not start with an edit, or reads something else than what was meant. */
export class UnfitEditError extends Error {}

/**
 * What containerd makes of its files before they are edited. It is `undefined` where it cannot be asked, and its restart
 * needs no systemd either.
 *
 * @throws Refusal when it would not start with them, reads something else in them than weir, or cannot be asked.
 */
export async function dumpBefore(work: Work, { settings, directory }: Target): Promise<string | undefined> {
  const byHand = `Set config_path = "${directory}" for the registry of the CRI plugin by hand, and restart containerd.`;
  let dump: string;
  try {
    dump = await work.askDump(work.signal);
  } catch (error) {
    work.signal.throwIfAborted();
    const why = messageOf(error);
    if (error instanceof UnacceptedError)
      throw new Refusal(
        `containerd would not start with its configuration as it is: ${why}`,
        'Correct it, and see that "containerd config dump" succeeds.',
        { cause: error },
      );
    if (goesWithout(work, error)) return undefined;
    if (error instanceof Refusal) throw error;
    throw new Refusal(`containerd cannot be asked what it reads in its configuration: ${why}`, byHand, {
      cause: error,
    });
  }
  const difference = differenceOfReadings(dump, settings);
  if (difference === undefined) return dump;
  throw new Refusal(`containerd reads its configuration otherwise than weir: ${difference}`, byHand);
}

/**
 * Has containerd read its files with the edit made.
 *
 * @throws UnfitEditError when it does not start with them, or they say something else than before and the path.
 * @throws Error when it cannot be asked.
 */
export async function checkEdit(work: Work, { dump, directory, path }: Entry): Promise<void> {
  // What could not be asked before is not asked now.
  if (dump === undefined && work.restarter.isByItself) return;
  let now: string;
  try {
    now = await work.askDump(work.signal);
  } catch (error) {
    work.signal.throwIfAborted();
    if (error instanceof UnacceptedError) {
      const what = `containerd would not start with ${path} as weir edited it`;
      throw new UnfitEditError(`${what}: ${messageOf(error)}`, { cause: error });
    }
    if (goesWithout(work, error)) return;
    throw error;
  }
  const difference = differenceOfEdit(dump, now, directory);
  if (difference !== undefined) throw new UnfitEditError(`${path} does not do: ${difference}`);
}

/** k0s runs also where there is no systemd, and restarts containerd by itself. */
function goesWithout({ restarter, log }: Work, error: unknown): boolean {
  if (!restarter.isByItself) return false;
  log.warn({ reason: messageOf(error) }, 'containerd is not asked what it reads in its configuration');
  return true;
}
