/** The system's code of a failure (`ENOENT`), when it has one. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The failure as a person needs it: what was tried, on which file, and what to do about it. */
export function fileProblem(attempt: string, path: string, cause: unknown): Error {
  const code = codeOf(cause);
  const what = cause instanceof Error ? cause.message : String(cause);
  const remedy =
    (code === undefined ? undefined : REMEDIES[code]) ??
    'Correct this; a command that ended has to be run again.';
  return new Error(`cannot ${attempt} ${path}: ${what}. ${remedy}`, { cause });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: 'Run weir as root, or give its user access.',
  EPERM: 'Run weir as root, and look for an immutable attribute (lsattr).',
  EROFS: 'Mount the file system writable, or name another directory.',
  ENOSPC: 'Free some space on that file system.',
  EDQUOT: "Free some of the user's quota on that file system.",
  ENOTDIR: 'A directory is wanted there: move away the file that has its name.',
  ELOOP: 'Correct the symbolic links, which lead round in a circle.',
  EISDIR: 'Move away the directory that has its name.',
  ENOENT: 'It is not there: make it, unless something removed it only meanwhile.',
};
