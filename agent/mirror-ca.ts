import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  clearLeftovers,
  makeDirectory,
  missingDirectories,
  removeFile,
  replaceFile,
} from '../process/durable-file.ts';
import { codeOf, fileProblem } from '../process/file-problem.ts';
import { readDiskFile } from './disk-file.ts';
import { listHostDirectories, openHostDirectory } from './host-directory.ts';
import type { Settled, State } from './state.ts';

/**
 * The authority of the mirror's certificate, once for all hosts: beside their directories, since one more file in a
 * host's own would be mistaken for somebody's, and no `.crt`, which containerd would trust for the upstream itself.
 */
const FILE = 'weir-mirror-ca.pem';
/** As the files of the hosts name it. */
export const MIRROR_CA_PATH = `../${FILE}`;

/** To be done before any file names it: containerd fails every pull by a file whose `ca` is not there. */
export async function writeMirrorCa(work: Settled & { readonly state: State }, pem: string): Promise<void> {
  const { certsDir, root, state } = work;
  const path = join(certsDir, FILE);
  await clearLeftovers(certsDir);
  const disk = await readDiskFile(path, root);
  if (disk.kind === 'file' && disk.link === undefined && disk.text === pem) return;
  state.rememberDirectories(await missingDirectories(certsDir));
  await state.save();
  await makeDirectory(certsDir);
  await replaceFile(path, pem);
}

/** Takes it away, unless a file still names it, which somebody edited or which could not be restored. */
export async function removeMirrorCa({ certsDir, root, log }: Settled): Promise<void> {
  const path = join(certsDir, FILE);
  if (!(await isThere(path))) return;
  for (const name of await listHostDirectories(certsDir)) {
    try {
      const disk = await readDiskFile((await openHostDirectory(certsDir, name)).file, root);
      if (disk.kind === 'file' && disk.text.includes(FILE)) return;
    } catch (error) {
      // Nothing that we wrote looks like this.
      log.debug({ err: error, name }, 'a host directory is passed over');
    }
  }
  await removeFile(path);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw fileProblem('look at', path, error);
  }
}
