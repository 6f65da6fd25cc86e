import type { Logger } from 'pino';
import { askWorkload } from '../cri-workload.ts';
import type { NodeSight } from '../runtimes/node-sight.ts';
import { type Attempt, attempt, type Result, resume } from './attempt.ts';
import { type AskConfigDump, clearDump, dumpConfig } from './config-dump.ts';
import { dumpBefore } from './dump-guard.ts';
import { hashOf, isUnfinished, type NewEntry } from './entry.ts';
import { type AskWorkload, problemOf } from './health.ts';
import { Journal } from './journal.ts';
import { propose } from './proposal.ts';
import { untilQuiet } from './quiet.ts';
import { Refusal } from './refusal.ts';
import { findRestarter } from './restarter.ts';

/** What one node at a time has. */
export interface Turn {
  /** Aborts when another node may have it by now. */
  readonly lost: AbortSignal;
  /**
   * The next node may begin, after so many milliseconds, unless the turn is over already. Never rejects.
   */
  release(afterMs?: number): Promise<void>;
  /** It is not given on: others have to wait until it has run out. */
  abandon(): void;
}

/** Resolves when it is this node's turn. */
export type TakeTurn = (signal: AbortSignal) => Promise<Turn>;

export interface ConfigureOptions {
  /** Where the node's file system is mounted, `/proc` and `/run` with it. */
  readonly root: string;
  /** Where originals and our memory are kept, a path of the node. */
  readonly stateDir: string;
  /** Which version of weir this is. */
  readonly version: string;
  readonly sight: NodeSight;
  readonly takeTurn: TakeTurn;
  readonly log: Logger;
  /** Leaves what is begun to the next call, and rejects. */
  readonly signal: AbortSignal;
  readonly findRestarter?: typeof findRestarter;
  readonly ask?: AskWorkload;
  readonly askDump?: AskConfigDump;
  /** How long pulls are waited for, and a runtime that was restarted. */
  readonly quietMs?: number;
  readonly healthMs?: number;
}

/**
 * - `unneeded`: no `config_path` is missing
 * - `configured`: it is set, and the runtime was restarted and is healthy
 * - `refused`: nothing was done
 * - `failed`: it was tried, now or before, and rolled back
 */
export type Configured =
  | { readonly kind: 'unneeded' | 'configured' }
  | { readonly kind: 'refused' | 'failed'; readonly reason: string; readonly remedy: string };

const QUIET_MS = 120_000;
const HEALTH_MS = 60_000;
const ASK_MS = 5_000;
/** What failed on one node may fail on all: so long there is to notice it, and to switch this off. */
const AFTER_FAILURE_MS = 600_000;

/**
 * Sets `config_path` in the runtime's own configuration where it is missing, and restarts the runtime: one node at a
 * time, once for the same files, and rolled back unless it is healthy afterwards. What an earlier call left amid is
 * brought to its end first.
 *
 * @throws Error when the node cannot be read or written, and when the signal is aborted.
 */
export async function configureRuntime(options: ConfigureOptions): Promise<Configured> {
  try {
    const journal = await Journal.open(options);
    await clearDump({ root: options.root, folder: journal.folder });
    return (await finish(options, journal)) ?? (await configure(options, journal));
  } catch (error) {
    if (error instanceof Refusal) return { kind: error.kind, reason: error.message, remedy: error.remedy };
    throw error;
  }
}

async function finish(options: ConfigureOptions, journal: Journal): Promise<Configured | undefined> {
  const before = journal.entry;
  if (before === undefined || !isUnfinished(before)) return undefined;
  const act = async (turn?: Turn): Promise<Configured | undefined> => {
    const result = await resume(await workOf(options, journal, before.restarter), before);
    return result && told(result, journal, turn);
  };
  // The runtime may be down, and the API server with it, which is asked for the turn.
  return before.step === 'rolling back' ? act() : inTurn(options, journal, act);
}

async function configure(options: ConfigureOptions, journal: Journal): Promise<Configured> {
  // What is to be refused is refused before others have to wait.
  if ((await prepare(options, journal)) === undefined) return { kind: 'unneeded' };
  return inTurn(options, journal, async (turn): Promise<Configured> => {
    const prepared = await prepare(options, journal);
    if (prepared === undefined) return { kind: 'unneeded' };
    const { target, work, entry, containerd } = prepared;
    const { quietMs = QUIET_MS, sight, root, log, signal } = options;
    await untilQuiet({ root, main: sight.configFiles[0], containerd, patienceMs: quietMs, log, signal });
    if (turn.lost.aborted) throw new Refusal('it is the turn of another node by now', 'weir tries again.');
    return told(await attempt(work, entry, target.before), journal, turn);
  });
}

/** What is left amid is brought to its end before another node begins; what does not work is for somebody to notice. */
async function inTurn<T>(
  { takeTurn, signal }: ConfigureOptions,
  journal: Journal,
  act: (turn: Turn) => Promise<T>,
): Promise<T> {
  const turn = await takeTurn(signal);
  try {
    return await act(turn);
  } catch (error) {
    if (isUnfinished(journal.entry))
      if (signal.aborted) turn.abandon();
      else await turn.release(AFTER_FAILURE_MS);
    throw error;
  } finally {
    await turn.release();
  }
}

async function told(result: Result, { path }: Journal, turn?: Turn): Promise<Configured> {
  if (result.kind === 'configured') return { kind: 'configured' };
  await turn?.release(AFTER_FAILURE_MS);
  const remedy = `Find out why, and remove ${path} to have weir try again.`;
  return { kind: 'failed', reason: result.reason, remedy };
}

/** Everything that has to be right before the first byte of the runtime's files is written. @throws Refusal */
async function prepare(options: ConfigureOptions, journal: Journal) {
  const { root, sight, version } = options;
  const found = await propose(root, sight, journal);
  if (found === undefined) return undefined;
  const { target, containerd, situation } = found;
  const work = await workOf(options, journal);
  const problem = await problemOf(work.ask, options.signal);
  if (problem !== undefined)
    throw new Refusal(problem, 'weir changes the configuration of a healthy runtime only.');
  const { running } = await work.ask(options.signal);
  const dump = await dumpBefore(work, target);
  const entry: NewEntry = {
    version: 1,
    weir: version,
    // Such a one is restarted as soon as the file is there.
    step: work.restarter.isByItself ? 'restarting' : 'configuring',
    situation,
    path: target.path,
    file: target.file,
    original:
      target.before === undefined || target.access === undefined
        ? null
        : { hash: hashOf(target.before), ...target.access },
    after: target.after,
    keys: [...target.keys],
    directory: target.directory,
    directories: [...target.directories],
    restarter: work.restarter.name,
    run: (await work.restarter.run()) ?? null,
    running: [...running],
    ...(dump === undefined ? {} : { dump }),
  };
  return { target, work, entry, containerd };
}

async function workOf(options: ConfigureOptions, journal: Journal, restarter?: string): Promise<Attempt> {
  const { root, sight, log, signal, healthMs = HEALTH_MS } = options;
  const find = options.findRestarter ?? findRestarter;
  const askDump: AskConfigDump = (stop) => dumpConfig({ root, folder: journal.folder, sight }, stop);
  return {
    root,
    journal,
    log,
    signal,
    healthMs,
    ask: askOf(options),
    askDump: options.askDump ?? askDump,
    restarter: await find(root, sight, restarter),
  };
}

function askOf({ ask, root, sight }: ConfigureOptions): AskWorkload {
  if (ask !== undefined) return ask;
  const socket = sight.socket?.value;
  if (socket === undefined) return () => Promise.reject(new Error('where it listens is not known'));
  return (signal) => askWorkload({ root, socket }, { timeout: ASK_MS, signal });
}
