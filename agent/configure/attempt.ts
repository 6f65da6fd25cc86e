import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { clearLeftovers, makeDirectory, replaceFile } from '../../process/durable-file.ts';
import { messageOf } from '../../process/file-problem.ts';
import { resolveOnNode } from '../node-root.ts';
import { viewNode } from '../runtimes/node-view.ts';
import { type AskWorkload, problemOf, untilHealthy } from './health.ts';
import { type Entry, hashOf, type Journal } from './journal.ts';
import { putBack } from './put-back.ts';
import { Refusal } from './refusal.ts';
import type { Restarter } from './restarter.ts';

export interface Attempt {
  readonly root: string;
  readonly journal: Journal;
  readonly restarter: Restarter;
  readonly ask: AskWorkload;
  /** Until a runtime that was restarted has to be healthy. */
  readonly healthMs: number;
  readonly log: Logger;
  /** Leaves everything as it is, for {@link resume} to bring to its end. */
  readonly signal: AbortSignal;
}

/** What an attempt comes to. */
export type Result = { readonly kind: 'configured' } | { readonly kind: 'failed'; readonly reason: string };

/**
 * Edits the file, restarts the runtime, and rolls back unless it is as healthy as before.
 *
 * @throws Refusal when the file cannot be written: nothing was restarted for it.
 */
export async function attempt(work: Attempt, entry: Entry, original: string | undefined): Promise<Result> {
  const { journal, signal } = work;
  signal.throwIfAborted();
  const begun = await journal.begin(entry, original);
  try {
    await write(work, begun);
  } catch (error) {
    await takeBack(work, begun);
    throw new Refusal(messageOf(error), 'weir tries again.', { cause: error });
  }
  return orRollBack(work, () => restart(work, begun));
}

/**
 * Brings an attempt to its end that a killed agent, or a node that went down, left amid.
 *
 * @returns `undefined` when all is as if nothing had been tried.
 */
export async function resume(work: Attempt, entry: Entry): Promise<Result | undefined> {
  const { root, restarter, ask, signal, log } = work;
  log.warn({ file: entry.path, step: entry.step }, 'a change of the runtime was left unfinished');
  if (entry.step === 'rolling back')
    return rollBack(work, entry, entry.reason ?? 'for a reason that is lost');
  await clearLeftovers(await resolveOnNode(root, dirname(entry.file)));
  const isEdited = (await viewNode(root).file(entry.file))?.text === entry.after;
  const isRestarted = (await restarter.run()) !== entry.run;
  if (isRestarted)
    return isEdited && entry.step === 'restarting'
      ? orRollBack(work, async () => judge(work, withoutStale(entry)))
      : takeBack(work, entry);
  if ((await problemOf(ask, signal)) !== undefined) return takeBack(work, entry);
  return orRollBack(work, async () => {
    const { running } = await ask(signal);
    await write(work, entry);
    return restart(work, { ...entry, running: [...running] });
  });
}

/** Nothing was restarted for it. */
async function takeBack({ root, journal }: Attempt, entry: Entry): Promise<undefined> {
  await putBack(root, journal, entry);
  await journal.remove();
}

/** What ran a while ago need not run any more. */
function withoutStale(entry: Entry): Entry {
  const at = Date.parse(entry.restarts.at(-1) ?? '');
  return Date.now() - at < STALE_MS ? entry : { ...entry, running: [] };
}

const STALE_MS = 120_000;

async function restart(work: Attempt, entry: Entry): Promise<Result> {
  const { journal, restarter, signal, log } = work;
  const restarts = [...entry.restarts, new Date().toISOString()].slice(-MAX_REMEMBERED);
  const restarting = await journal.to('restarting', { restarts, running: entry.running });
  log.info({ file: entry.path }, 'the runtime is restarted');
  await restarter.restart(entry.run ?? undefined, signal);
  return judge(work, restarting);
}

const MAX_REMEMBERED = 10;

async function judge({ ask, healthMs, journal, log, signal }: Attempt, entry: Entry): Promise<Result> {
  const expected = { running: entry.running, configPath: entry.directory };
  await untilHealthy(ask, expected, { patienceMs: healthMs, signal });
  await journal.to('done');
  log.info({ file: entry.path }, 'the runtime is configured, and healthy');
  return { kind: 'configured' };
}

async function orRollBack(work: Attempt, act: () => Promise<Result>): Promise<Result> {
  try {
    return await act();
  } catch (error) {
    work.signal.throwIfAborted();
    const { entry } = work.journal;
    if (entry === undefined) throw error;
    return rollBack(work, entry, messageOf(error));
  }
}

/** A runtime that serves is not restarted once more: what it goes by does no harm, and its files are as they were. */
async function rollBack(work: Attempt, entry: Entry, reason: string): Promise<Result> {
  const { root, journal, restarter, ask, healthMs, log, signal } = work;
  log.error({ file: entry.path, reason }, 'the change of the runtime is rolled back');
  await journal.to('rolling back', { reason });
  const problems = [reason];
  try {
    const run = await restarter.run();
    const end = await putBack(root, journal, entry);
    if (end === 'left') problems.push(`${entry.path} was changed meanwhile and is left as it is`);
    if ((restarter.isByItself && end !== 'left') || (await problemOf(ask, signal)) !== undefined) {
      await restarter.restart(run, signal);
      await untilHealthy(ask, undefined, { patienceMs: healthMs, signal });
    }
  } catch (error) {
    signal.throwIfAborted();
    problems.push(`and rolling back failed: ${messageOf(error)}`);
  }
  const full = problems.join('; ');
  await journal.to('failed', { reason: full });
  return { kind: 'failed', reason: full };
}

async function write({ root }: Attempt, entry: Entry): Promise<void> {
  const now = (await viewNode(root).file(entry.file))?.text;
  if (now === entry.after) return;
  if ((now === undefined ? undefined : hashOf(now)) !== entry.original?.hash)
    throw new Error(`${entry.path} was changed by somebody else just now`);
  const path = await resolveOnNode(root, entry.file);
  for (const directory of entry.directories) await makeDirectory(await resolveOnNode(root, directory));
  await replaceFile(path, entry.after, entry.original ?? {});
}
