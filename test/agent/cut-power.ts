// The power goes before the n-th operation that changes a disk: whatever was done until then is there afterwards.

import fs, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import type { TestContext } from 'node:test';

class PowerCut extends Error {}

const operations = ['rename', 'mkdir', 'unlink', 'rmdir', 'symlink', 'chmod', 'lchown'] as const;

/** Runs until the power goes, and says whether it went. What is no operation on a disk may spend one as well. */
export async function cutBefore(
  t: TestContext,
  count: number,
  run: (spend: () => void) => Promise<unknown>,
): Promise<boolean> {
  let left = count;
  const spend = (): void => {
    if (left-- <= 0) throw new PowerCut(`before operation ${count}`);
  };
  const mocks = operations.map((name) => {
    const real: (...given: never[]) => Promise<unknown> = fs[name];
    return t.mock.method(fs, name, (...given: never[]) => {
      spend();
      return real(...given);
    });
  });
  const open = fs.open;
  mocks.push(
    t.mock.method(fs, 'open', async (...given: Parameters<typeof open>) => {
      if (given[1] === 'wx') spend();
      const handle: FileHandle = await open(...given);
      for (const name of ['writeFile', 'chmod', 'chown', 'sync'] as const) {
        const real: (...given: never[]) => Promise<unknown> = handle[name].bind(handle);
        t.mock.method(handle, name, (...given: never[]) => {
          spend();
          return real(...given);
        });
      }
      return handle;
    }),
  );
  syncBuiltinESMExports();
  try {
    await run(spend);
    return left < 0;
  } catch (error) {
    if (left >= 0) throw error;
    return true;
  } finally {
    for (const mock of mocks) mock.mock.restore();
    syncBuiltinESMExports();
  }
}
