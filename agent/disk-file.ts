import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readlink, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Access } from '../process/durable-file.ts';
import { codeOf, fileProblem } from '../process/file-problem.ts';
import { pathOnNode, resolveOnNode } from './node-root.ts';

/** What stands on disk under a hosts.toml's name. */
export type DiskFile = { readonly kind: 'absent' } | PresentFile;

export interface PresentFile {
  readonly kind: 'file';
  /** Of a link that leads nowhere it is empty, as it is for containerd. */
  readonly text: string;
  /** `false`: the text is not all that the bytes say, and TOML it is not. */
  readonly isUtf8: boolean;
  /** Of a symbolic link: its own owner, and the mode of what it leads to. */
  readonly access: Access;
  /** Where it leads when it is a symbolic link. */
  readonly link?: string;
}

/**
 * The file at a path below `root`, where the node's file system is mounted.
 *
 * @throws Error when it is no regular file, too large for a hosts.toml, or cannot be read. A FIFO is never opened:
 * that would wait for a writer for ever.
 */
export async function readDiskFile(path: string, root = '/'): Promise<DiskFile> {
  try {
    const { mode, uid, gid, link } = await lstatOf(path);
    if (link === undefined) {
      const { bytes } = await readBytes(path);
      return { kind: 'file', ...decode(bytes), access: { mode: mode & 0o7777, uid, gid } };
    }
    const target = await readIfThere(await followOnNode(root, path, link));
    const access = { mode: (target?.mode ?? 0o644) & 0o7777, uid, gid };
    return { kind: 'file', ...decode(target?.bytes ?? Buffer.alloc(0)), access, link };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { kind: 'absent' };
    throw error instanceof UnfitError ? error : fileProblem('read', path, error);
  }
}

/** Far more than any hosts.toml has, far less than what would hold up the agent. */
const MAX_BYTES = 256 * 1024;

class UnfitError extends Error {}

async function lstatOf(path: string): Promise<Access & { link: string | undefined }> {
  const entry = await lstat(path);
  const { mode, uid, gid } = entry;
  return { mode, uid, gid, link: entry.isSymbolicLink() ? await readlink(path) : undefined };
}

function followOnNode(root: string, path: string, link: string): Promise<string> {
  return resolveOnNode(root, link.startsWith('/') ? link : join(pathOnNode(root, dirname(path)), link));
}

async function readIfThere(path: string): Promise<{ bytes: Buffer; mode: number } | undefined> {
  try {
    return await readBytes(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function readBytes(path: string): Promise<{ bytes: Buffer; mode: number }> {
  checkFit(path, await stat(path));
  // The file may have become a FIFO since: opening one without waiting is harmless.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    checkFit(path, found);
    return { bytes: await readLimited(path, handle), mode: found.mode };
  } finally {
    await handle.close();
  }
}

function checkFit(path: string, found: { isFile(): boolean; readonly size: number }): void {
  if (!found.isFile()) throw new UnfitError(`${path} is no regular file. Move it away.`);
  if (found.size > MAX_BYTES) throw tooLarge(path);
}

async function readLimited(path: string, handle: FileHandle): Promise<Buffer> {
  const buffer = Buffer.alloc(MAX_BYTES + 1);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
    if (bytesRead === 0) return buffer.subarray(0, length);
    length += bytesRead;
  }
  throw tooLarge(path);
}

function tooLarge(path: string): UnfitError {
  return new UnfitError(
    `${path} has more than ${MAX_BYTES} bytes, more than a file of registry hosts has. Move it away.`,
  );
}

function decode(bytes: Buffer): { text: string; isUtf8: boolean } {
  const text = bytes.toString('utf8');
  return { text, isUtf8: Buffer.from(text, 'utf8').equals(bytes) };
}
