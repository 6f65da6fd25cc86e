import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { clearLeftovers, makeDirectory, replaceFile } from '../../process/durable-file.ts';
import { messageOf } from '../../process/file-problem.ts';
import { resolveOnNode } from '../node-root.ts';
import { viewNode } from '../runtimes/node-view.ts';
import type { AskConfigDump } from './config-dump.ts';
import { checkEdit, UnfitEditError } from './dump-guard.ts';
import { type Entry, hashOf, LOST, type NewEntry, withRestart } from './entry.ts';
import { type AskWorkload, problemOf, untilHealthy } from './health.ts';
import type { Journal } from './journal.ts';
import { putBack } from './put-back.ts';
import { Refusal } from './refusal.ts';
import type { Restarter } from './restarter.ts';
import { rollBack } from './roll-back.ts';

export interface Attempt {
  readonly root: string;
  readonly journal: Journal;
  readonly restarter: Restarter;
  readonly ask: AskWorkload;
  readonly askDump: AskConfigDump;
  /** Until a runtime that was restarted has to be healthy. */
  readonly healthMs: number;
  readonly log: Logger;
  /** Leaves everything as it is, for {@link resume} to bring to its end. */
  readonly signal: AbortSignal;
}

/** What an attempt comes to. */
export type Result = { readonly kind: 'configured' } | { readonly kind: 'failed'; readonly reason: string };

/**
 * Edits the file, restarts the runtime once containerd has read it as it is meant, and rolls back unless it is as healthy
 * as before.
 *
 * @throws Refusal when the file cannot be written, or containerd not be asked: nothing was restarted for it.
 * @throws Error when it cannot be brought to an end, which is for {@link resume} then.
 */
export async function attempt(work: Attempt, entry: NewEntry, original: string | undefined): Promise<Result> {
  work.signal.throwIfAborted();
  return editAndRestart(work, await work.journal.begin(entry, original));
}

/**
 * Brings an attempt to its end that a killed agent, or a node that went down, left amid.
 *
 * @returns `undefined` when all is as if nothing had been tried.
 */
export async function resume(work: Attempt, entry: Entry): Promise<Result | undefined> {
  const { root, restarter, ask, signal, log } = work;
  log.warn({ file: entry.path, step: entry.step }, 'a change of the runtime was left unfinished');
  if (entry.step === 'rolling back') return rollBack(work, entry, entry.reason ?? LOST);
  await clearLeftovers(await resolveOnNode(root, dirname(entry.file)));
  const isEdited = (await viewNode(root).file(entry.file))?.text === entry.after;
  if ((await runOf(work)) !== entry.run) {
    if (entry.step !== 'restarting') return takeBack(work, entry);
    if (isEdited) return orRollBack(work, () => judge(work, withoutStale(entry)));
    // It is begun in this step, and may have been restarted for something else.
    if (restarter.isByItself) return takeBack(work, entry);
    return rollBack(work, entry, 'its file was changed back before it was known to do');
  }
  if ((await problemOf(ask, signal)) !== undefined) return takeBack(work, entry);
  const { running } = await ask(signal);
  return editAndRestart(work, { ...entry, running: [...running] });
}

/** Where its restarter cannot be asked, a runtime that does not serve counts as one that does not run. */
async function runOf({ restarter, ask, signal }: Attempt): Promise<string | undefined> {
  try {
    return await restarter.run();
  } catch (error) {
    if ((await problemOf(ask, signal)) === undefined) throw error;
    return undefined;
  }
}

/** Nothing was restarted for it. */
async function takeBack({ root, journal }: Attempt, entry: Entry): Promise<undefined> {
  await putBack(root, journal, entry);
  await journal.takeBack();
}

/** What ran a while ago need not run any more. */
function withoutStale(entry: Entry): Entry {
  const at = Date.parse(entry.restarts.at(-1) ?? '');
  return Date.now() - at < STALE_MS ? entry : { ...entry, running: [] };
}

const STALE_MS = 120_000;

async function editAndRestart(work: Attempt, entry: Entry): Promise<Result> {
  const { journal, restarter, signal, log } = work;
  let restarting: Entry;
  try {
    await write(work, entry);
    // One that restarts by itself brings the files together as it does.
    if (!restarter.isByItself) await checkEdit(work, entry);
    const restarts = withRestart(entry.restarts);
    restarting = await journal.to('restarting', { restarts, running: entry.running });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof UnfitEditError) return rollBack(work, entry, error.message);
    await takeBack(work, entry);
    throw new Refusal(messageOf(error), 'weir tries again.', { cause: error });
  }
  return orRollBack(work, async () => {
    log.info({ file: entry.path }, 'the runtime is restarted');
    await restarter.restart(entry.run ?? undefined, signal);
    await judge(work, restarting);
  });
}

async function judge(work: Attempt, entry: Entry): Promise<void> {
  const { ask, restarter, healthMs, signal } = work;
  const expected = { running: entry.running, configPath: entry.directory };
  await untilHealthy(ask, expected, { patienceMs: healthMs, signal });
  if (restarter.isByItself) await checkEdit(work, entry);
}

async function orRollBack(work: Attempt, act: () => Promise<void>): Promise<Result> {
  const { journal, signal, log } = work;
  try {
    await act();
  } catch (error) {
    signal.throwIfAborted();
    if (journal.entry === undefined) throw error;
    return rollBack(work, journal.entry, messageOf(error));
  }
  const { path } = await journal.to('done');
  log.info({ file: path }, 'the runtime is configured, and healthy');
  return { kind: 'configured' };
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
