import { messageOf } from '../process/file-problem.ts';
import type { Change } from './change.ts';

/** Something could not be restored, and the rest was. */
export class RestoreFailure extends AggregateError {
  override readonly name = 'RestoreFailure';
  /** What was restored. */
  readonly changes: readonly Change[];

  constructor(errors: readonly unknown[], changes: readonly Change[]) {
    super(errors, errors.map(messageOf).join('\n'));
    this.changes = changes;
  }
}

/**
 * Restores one thing after the other, and goes on when one of them fails.
 *
 * @throws RestoreFailure with the errors of those that failed, and what was restored.
 */
export async function restoreEach(
  works: Iterable<() => Promise<readonly Change[]>>,
): Promise<readonly Change[]> {
  const changes: Change[] = [];
  const failures: unknown[] = [];
  for (const work of works) {
    try {
      changes.push(...(await work()));
    } catch (error) {
      if (error instanceof RestoreFailure) changes.push(...error.changes);
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new RestoreFailure(failures, changes);
  return changes;
}
