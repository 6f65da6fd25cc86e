import process from 'node:process';

/** Wrong use of the command, or a file that it was given: exit code 2, the message alone, no stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

/**
 * Runs a program until it returns. The first SIGTERM or SIGINT aborts the signal that it was given, so that it
 * can drain; a second one ends it at once. Only this file sets the exit code of a program that ran.
 */
export async function runProgram(main: (stop: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(EXIT_INTERRUPTED);
    stop.abort();
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  try {
    await main(stop.signal);
  } catch (error) {
    process.exitCode = error instanceof UsageError ? EXIT_USAGE : EXIT_FAILURE;
    process.stderr.write(`weir: ${describe(error)}\n`);
  } finally {
    process.off('SIGTERM', onSignal).off('SIGINT', onSignal);
  }
}

/** Ends a program with a line instead of a stack where its standard output cannot be written, as on a full disk. */
export function watchOutput(): void {
  process.stdout.on('error', (error: Error) => {
    process.exitCode = EXIT_FAILURE;
    process.stderr.write(`weir: cannot write to standard output: ${error.message}\n`);
  });
}

/** Resolves when the signal aborts. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}

/** An error's message with those of its causes: `cannot write X: permission denied`. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner =
    error instanceof AggregateError ? error.errors : error.cause === undefined ? [] : [error.cause];
  const message = error.message || error.name;
  const added = inner.map(describe).filter((text) => !message.includes(text));
  return [message, ...added].join(': ');
}
