import { randomUUID } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/**
 * Writes a file so that a reader, or a machine that fails at any moment, sees the old content or the new one.
 * Its directory is made where it is missing.
 *
 * @throws Error that names the file.
 */
export async function writeFileAtomically(
  path: string,
  content: string | Uint8Array,
  mode = 0o644,
): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `.${basename(path).slice(0, 64)}.${randomUUID()}.tmp`);
  try {
    await mkdir(directory, { recursive: true });
    {
      await using file = await open(temporary, 'wx', mode);
      await file.writeFile(content);
      await file.sync();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new Error(`cannot write ${path}`, { cause });
  }
}
