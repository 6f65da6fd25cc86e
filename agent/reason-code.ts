import { codeOf } from '../process/file-problem.ts';
import type { HostState } from './change.ts';

/** For programs, and the same in every version: of a state, unless something more particular is known. */
const CODES: Readonly<Record<Exclude<HostState['kind'], 'configured'> | 'bypassed', string>> = {
  overridden: 'user-file',
  unparsable: 'unreadable-file',
  failed: 'error',
  unsupported: 'runtime',
  withdrawn: 'mirror-ill',
  bypassed: 'not-obeyed',
};

/** Why an upstream is not as the configuration says, in a word; `undefined` when it is. */
export function reasonCode(state: HostState, isBypassed: boolean): string | undefined {
  if (state.kind === 'configured') return isBypassed ? CODES.bypassed : undefined;
  return state.code ?? CODES[state.kind];
}

/** `failed`, with the system's code of what is behind it (`ENOSPC`). */
export function failedBy(error: unknown, reason: string): HostState {
  const code = systemCode(error);
  return { kind: 'failed', reason, ...(code === undefined ? {} : { code }) };
}

function systemCode(error: unknown): string | undefined {
  return codeOf(error) ?? (error instanceof Error ? systemCode(error.cause) : undefined);
}
