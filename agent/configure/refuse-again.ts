import { failuresOf } from './entry.ts';
import type { Journal } from './journal.ts';
import { Refusal } from './refusal.ts';

const DAY_MS = 86_400_000;
/** However often something takes the value out again. */
const MAX_RESTARTS_A_DAY = 3;
/** One to try, and one to roll back. */
const RESTARTS_OF_AN_ATTEMPT = 2;

/** A runtime is not restarted again for what did not do before, nor for ever. @throws Refusal */
export function refuseAgain({ entry, path }: Journal, situation: string): void {
  if (entry === undefined) return;
  const remedy = `Find out why, and remove ${path} to have weir try again.`;
  const failure = failuresOf(entry).find((one) => one.situation === situation);
  if (failure !== undefined)
    throw new Refusal(`this was tried with the same files before, and failed: ${failure.reason}`, remedy, {
      kind: 'failed',
    });
  if (entry.situation === situation)
    throw new Refusal(
      `weir set config_path in ${entry.path} before, and something took it out again`,
      remedy,
    );
  const since = Date.now() - DAY_MS;
  const restarts = entry.restarts.filter((at) => Date.parse(at) > since);
  if (restarts.length + RESTARTS_OF_AN_ATTEMPT > MAX_RESTARTS_A_DAY)
    throw new Refusal(
      `weir restarted the runtime ${restarts.length} times within a day, and an attempt may take ${RESTARTS_OF_AN_ATTEMPT} more`,
      remedy,
    );
}
