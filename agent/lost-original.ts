import { replaceFile } from '../process/durable-file.ts';
import type { PresentFile } from './disk-file.ts';
import type { HostDirectory } from './host-directory.ts';
import { type Marker, mark, refer, type Verdict } from './marker.ts';
import { findDamaged } from './original.ts';
import { withoutMirror } from './without-mirror.ts';

interface Known {
  readonly marker: Marker;
  readonly verdict: Verdict | undefined;
  readonly written: string | undefined;
}

/**
 * Takes our host out of a file whose original cannot be had, and leaves in it which original that is: with the state
 * directory of the agent that wrote it, it still comes back.
 */
export async function keepReferring(
  { file }: HostDirectory,
  disk: PresentFile,
  { marker, verdict, written }: Known,
): Promise<void> {
  // Of a file of ours that is cut short, only our memory tells what else was in it.
  const known = verdict?.kind === 'damaged' ? written : disk.text;
  if (known === undefined) return;
  const { text } = withoutMirror(known, marker.mirror);
  const kept = verdict?.kind === 'edited' ? refer(text, marker) : mark(text, marker);
  if (kept !== disk.text) await replaceFile(file, kept, disk.access);
}

/** Why an original does not come back, and what to do about it. */
export async function lostOriginal(
  place: { readonly stateDir: string; readonly originals: string; readonly file: string },
  id: string,
  isThere: boolean,
): Promise<Error> {
  const { stateDir, originals, file } = place;
  const damaged = await findDamaged(originals, id);
  const what =
    damaged === undefined
      ? `the original of ${file}, ${id}, is not in the state directory ${stateDir}`
      : `the original of ${file}, ${damaged}, is not what was saved`;
  const remedy =
    damaged === undefined
      ? 'Give --state-dir of the agent that wrote it'
      : 'Bring that file back from a backup, and roll back again';
  const way = isThere ? 'remove the first line of what is there' : 'write it yourself';
  const done = isThere ? '; nothing that containerd can read in it names the mirror' : '';
  return new Error(`${what}${done}. ${remedy}; if it is lost for good, ${way}, and it is yours.`);
}
