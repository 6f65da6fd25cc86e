import { type Logger, pino, stdSerializers } from 'pino';
import pretty from 'pino-pretty';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Standard error: one JSON object a line, or readable lines where a person looks on. */
export function createLogger(level: LogLevel, forTerminal: boolean): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: serialize },
  };
  if (!forTerminal) {
    const destination = pino.destination({ fd: STANDARD_ERROR, sync: true });
    // A log that nobody can write to, such as a file on a full disk, is no reason to end.
    destination.on('error', () => undefined);
    return pino({ ...options, formatters: { level: (label) => ({ level: label }) } }, destination);
  }
  return pino(
    options,
    pretty({ destination: STANDARD_ERROR, sync: true, translateTime: 'SYS:HH:MM:ss', singleLine: true }),
  );
}

const STANDARD_ERROR = 2;

/** An error's message may be made only when it is asked for, and fail then: no reason for the log to fail. */
function serialize(error: unknown): unknown {
  try {
    return error instanceof Error ? stdSerializers.err(error) : String(error);
  } catch (failure) {
    return `an error that cannot be told: ${String(failure)}`;
  }
}
