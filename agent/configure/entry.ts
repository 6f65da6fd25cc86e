import { createHash } from 'node:crypto';
import * as z from 'zod';

/**
 * How far it is:
 * - `configuring`: the file may have been edited; nothing was restarted
 * - `restarting`: the file is edited, and the runtime is, or is going to be, restarted
 * - `rolling back`: it did not do, for a reason, and the file is still to be put back
 * - `done` and `failed`: there is nothing more to do; what failed is put back
 */
export type Step = 'configuring' | 'restarting' | 'rolling back' | 'done' | 'failed';

const steps: readonly Step[] = ['configuring', 'restarting', 'rolling back', 'done', 'failed'];
const absolute = z.string().startsWith('/');
const singleSchema = z.strictObject({
  version: z.literal(1),
  /** By which version of weir. */
  weir: z.string(),
  step: z.enum(steps),
  /** Of `rolling back` and `failed`. */
  reason: z.string().optional(),
  /** Hash of all of the runtime's files as they were. */
  situation: z.string(),
  /** As the runtime names the file, and where it really is. */
  path: absolute,
  file: absolute,
  /** What there was; `null` when there was no file. */
  original: z
    .strictObject({
      hash: z.string(),
      mode: z.int().min(0).max(0o7777),
      uid: z.int().min(0),
      gid: z.int().min(0),
    })
    .nullable(),
  /** The text with the edit. */
  after: z.string(),
  keys: z.array(z.string()).min(1),
  /** What `config_path` is set to. */
  directory: absolute,
  /** Directories that were made for the file, outermost first. */
  directories: z.array(absolute),
  /** By whom the runtime is restarted, and its run before that. */
  restarter: z.string(),
  run: z.string().nullable(),
  /** What ran on it before. */
  running: z.array(z.string()),
  /** When it was told to restart, to try or to roll back, the last time at the end. */
  restarts: z.array(z.iso.datetime()),
  /** What failed before this one. */
  failures: z.array(z.strictObject({ situation: z.string(), reason: z.string() })).default([]),
});
/** As it is written down. */
export const entrySchema = singleSchema.extend({
  /** What was finished when this one was begun, which counts again when it is taken back. */
  former: singleSchema.optional(),
  /** What containerd made of its files before (`config dump`), where it could be asked. */
  dump: z.string().optional(),
});

/** What weir did to a runtime's configuration, written down before it is done. Paths are the node's own. */
export type Entry = z.infer<typeof entrySchema>;

/** One that is to begin: the rest comes from what was before it. */
export type NewEntry = Omit<Entry, 'restarts' | 'failures' | 'former'>;

const MAX_REMEMBERED = 20;

/** The entry of something new, which remembers what was before it. */
export function follow(before: Entry | undefined, entry: NewEntry): Entry {
  if (before === undefined) return { ...entry, restarts: [], failures: [] };
  const { former: _, dump: __, ...last } = before;
  const failures = failuresOf(before).slice(-MAX_REMEMBERED);
  return { ...entry, restarts: before.restarts, failures, former: last };
}

/** In which situations it failed so far, and why. */
export function failuresOf(entry: Entry | undefined): Entry['failures'] {
  if (entry === undefined) return [];
  const { failures, step, situation, reason = LOST } = entry;
  return step === 'failed' ? [...failures, { situation, reason }] : failures;
}

/** Of a reason that nobody wrote down. */
export const LOST = 'for a reason that is lost';

/** One more, just now. */
export function withRestart(restarts: Entry['restarts']): Entry['restarts'] {
  return [...restarts, new Date().toISOString()].slice(-MAX_REMEMBERED);
}

export function isUnfinished(entry: Pick<Entry, 'step'> | undefined): boolean {
  return entry !== undefined && entry.step !== 'done' && entry.step !== 'failed';
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
