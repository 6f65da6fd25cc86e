import type { DiskFile } from '../disk-file.ts';
import type { Memory, MemoryFile } from '../memory.ts';
import { loadOriginal, type Original, originalOf } from '../original.ts';
import { mirrorsOf, withoutMirror } from './daemon-json.ts';

/**
 * The daemon.json that Docker would have without weir; `undefined` when it would have none. Of a file that somebody
 * edited since we wrote it, that is all but our mirror.
 *
 * @throws Error that says why dockerd would refuse the file.
 */
export async function findBasis(
  memoryFile: MemoryFile,
  memory: Memory | undefined,
  disk: DiskFile,
): Promise<Original | undefined> {
  if (disk.kind === 'absent') return undefined;
  if (memory === undefined) return originalOf('/etc/docker', disk);
  const { written, replaced, mirror, original: id } = memory;
  const original = id === undefined ? undefined : await loadOriginal(memoryFile.originals, id);
  const isLost = id !== undefined && original === undefined;
  if (disk.text === original?.text || ([written, replaced].includes(disk.text) && !isLost)) return original;
  const keepsEmpty = original !== undefined && mirrorsOf(original.text) !== undefined;
  return originalOf('/etc/docker', { ...disk, text: withoutMirror(disk.text, mirror, keepsEmpty) });
}
