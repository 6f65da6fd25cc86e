import { stat } from 'node:fs/promises';
import { codeOf, fileProblem } from '../process/file-problem.ts';
import { UsageError } from '../process/lifecycle.ts';

/** @throws UsageError when a node's file system cannot be mounted there. */
export async function checkHostRoot(root: string): Promise<void> {
  if (!(await isDirectory(root)))
    throw new UsageError(
      `there is no directory ${root}: --host-root is where the node's file system is mounted`,
    );
}

export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '')) return false;
    throw fileProblem('look at', path, error);
  }
}
