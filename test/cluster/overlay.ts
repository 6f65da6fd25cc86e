// A node's files are an overlay on the machine's, and containers' are overlays as well: not every file system
// carries one, and an overlay does not.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, run } from '../tools/command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

/** Why no overlay can be mounted where the clusters' files go, in one sentence. */
export async function missingOverlay(): Promise<string | undefined> {
  const scratch = await makeScratch();
  const [upper, work, target] = ['upper', 'work', 'target'].map((name) => join(scratch, name));
  try {
    for (const directory of [upper, work, target]) await mkdir(directory ?? scratch);
    const options = `lowerdir=/etc,upperdir=${upper},workdir=${work}`;
    const mount = ['mount', '-t', 'overlay', '-o', options, 'overlay', target ?? scratch];
    await run('unshare', ['--mount', '--propagation', 'private', ...mount]);
    return undefined;
  } catch (error) {
    const reason = error instanceof CommandError ? error.reason : String(error);
    return `${scratch} carries no overlay, so set TMPDIR to a directory that does: ${reason}`;
  } finally {
    await removeScratch(scratch);
  }
}
