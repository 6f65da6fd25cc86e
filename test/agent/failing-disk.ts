// A disk that is full, or read-only from some moment on.

import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import type { TestContext } from 'node:test';

const MESSAGES = { ENOSPC: 'no space left on device', EROFS: 'read-only file system' } as const;

/** Nothing is written at such paths any more, until what is returned is called; removing works on a full disk. */
export function failWrites(
  t: TestContext,
  code: keyof typeof MESSAGES,
  isThere: (path: string) => boolean,
): () => void {
  const failIf = (isWritten: boolean, path: unknown): void => {
    if (isWritten && isThere(String(path))) throw Object.assign(new Error(MESSAGES[code]), { code });
  };
  const open = fs.open;
  const mocks = [
    t.mock.method(fs, 'open', async (...given: Parameters<typeof open>) => {
      failIf(given[1] === 'wx', given[0]);
      return open(...given);
    }),
    ...(['unlink', 'rmdir', 'rename', 'mkdir'] as const).map((name) => {
      const real: (...given: never[]) => Promise<unknown> = fs[name];
      return t.mock.method(fs, name, async (...given: never[]) => {
        failIf(code === 'EROFS', given[0]);
        return real(...given);
      });
    }),
  ];
  syncBuiltinESMExports();
  return () => {
    for (const mock of mocks) mock.mock.restore();
    syncBuiltinESMExports();
  };
}
