import { Journal } from '../configure/journal.ts';
import { Refusal } from '../configure/refusal.ts';
import { DROP_INS } from '../crio/user-registries.ts';
import { MemoryFile } from '../memory.ts';
import { type NodePlace, rememberedDirectories } from '../state.ts';

/** Where weir has been on a node: the files and directories that a restore may change. */
export async function touchedPaths(place: NodePlace & { readonly root: string }): Promise<readonly string[]> {
  const memories = ['crio', 'docker'].map(async (runtime) =>
    (await MemoryFile.open(place, runtime)).load(place.log),
  );
  const files = (await Promise.all(memories)).flatMap((memory) =>
    memory === undefined ? [] : [memory.file],
  );
  // What is unreadable is nothing that a restore goes by, which says so.
  const journal = await Journal.open(place).catch((error: unknown) => {
    if (error instanceof Refusal) return undefined;
    throw error;
  });
  return [
    ...(await rememberedDirectories(place)),
    // Its file says by itself that it is ours.
    DROP_INS,
    ...files,
    ...(journal?.entry === undefined ? [] : [journal.entry.file]),
  ];
}
