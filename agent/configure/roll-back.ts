import { messageOf } from '../../process/file-problem.ts';
import type { Attempt, Result } from './attempt.ts';
import { type Entry, withRestart } from './entry.ts';
import { problemOf, untilHealthy } from './health.ts';
import { type PutBack, putBack } from './put-back.ts';

/**
 * Brings the file back, and has the runtime restarted if it does not serve: one that does is not restarted once more,
 * since what it goes by until its next start does no harm, nor is one that was not restarted for the edit. The file comes
 * first, whatever else does not work.
 *
 * @throws Error when the file cannot be put back, or that cannot be written down: there is more to do then.
 */
export async function rollBack(work: Attempt, entry: Entry, reason: string): Promise<Result> {
  const { root, journal, restarter, log } = work;
  log.error({ file: entry.path, reason }, 'the change of the runtime is rolled back');
  const problems = [reason];
  await unlessItFails(work, problems, () => journal.to('rolling back', { reason }));
  // One that restarts by itself does so as soon as its file is back.
  const run = restarter.isByItself ? await restarter.run() : undefined;
  const end = await putBack(root, journal, entry).catch((error: unknown) => {
    throw new Error(`${reason}; and ${entry.path} is not put back: ${messageOf(error)}`, { cause: error });
  });
  if (end === 'left') problems.push(`${entry.path} was changed meanwhile and is left as it is`);
  await unlessItFails(work, problems, () => serveAgain(work, problems, { end, run, entry }));
  const full = problems.join('; ');
  await journal.to('failed', { reason: full }).catch((error: unknown) => {
    throw new Error(`${full}; and that is not written down: ${messageOf(error)}`, { cause: error });
  });
  return { kind: 'failed', reason: full };
}

async function serveAgain(
  work: Attempt,
  problems: string[],
  { end, run, entry }: { readonly end: PutBack; readonly run: string | undefined; readonly entry: Entry },
): Promise<void> {
  const { journal, restarter, ask, healthMs, signal } = work;
  const isRestarted = restarter.isByItself && (end === 'as it was' || end === 'taken out');
  if (!isRestarted && (await problemOf(ask, signal)) === undefined) return;
  // What ails one that was not restarted for it is not for us to end.
  if (!restarter.isByItself && entry.run !== null && (await restarter.run()) === entry.run) return;
  const restarts = withRestart(entry.restarts);
  await unlessItFails(work, problems, () => journal.to('rolling back', { restarts }));
  await restarter.restart(run, signal);
  await untilHealthy(ask, undefined, { patienceMs: healthMs, signal });
}

/** A node whose runtime may be down has the rest done all the same. */
async function unlessItFails(
  { signal }: Attempt,
  problems: string[],
  act: () => Promise<unknown>,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    signal.throwIfAborted();
    problems.push(`and rolling back failed: ${messageOf(error)}`);
  }
}
