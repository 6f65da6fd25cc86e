import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Access } from '../../process/durable-file.ts';
import { fileProblem } from '../../process/file-problem.ts';

/** A file's bytes, its owner and its mode. @throws Error when it cannot be read. */
export async function readWithAccess(path: string): Promise<{ bytes: Buffer; access: Access }> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { mode, uid, gid } = await handle.stat();
      return { bytes: await handle.readFile(), access: { mode: mode & 0o7777, uid, gid } };
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fileProblem('read', path, error);
  }
}
