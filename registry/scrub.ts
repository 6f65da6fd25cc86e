import { algorithmOf, type Digest, hasherFor } from '../oci/digest.ts';
import { messageOf } from '../process/file-problem.ts';
import type { Store, StoredBlob } from './store.ts';

/** A blob that is not what its digest says, or cannot be read. */
export interface Damage {
  readonly digest: Digest;
  readonly why: string;
  /** `unreadable`: it may be right, so it stays, as a `damaged` one does that is not to be removed. */
  readonly outcome: 'removed' | 'damaged' | 'unreadable';
}

export interface ScrubReport {
  readonly blobs: number;
  readonly bytes: number;
  readonly damaged: readonly Damage[];
}

/**
 * Reads every blob of the store and compares it with its digest. Damaged ones are removed when `repair` says so:
 * they are fetched again when they are next asked for.
 *
 * @throws Error of the store when it cannot be listed, or the signal aborts.
 */
export async function scrub(
  store: Store,
  { repair, onDamage, signal }: { repair: boolean; onDamage: (damage: Damage) => void; signal: AbortSignal },
): Promise<ScrubReport> {
  const damaged: Damage[] = [];
  let blobs = 0;
  let bytes = 0;
  for await (const digest of store.digests()) {
    signal.throwIfAborted();
    blobs += 1;
    const { size, damage } = await examine(store, digest, repair, signal);
    bytes += size;
    if (damage === undefined) continue;
    damaged.push(damage);
    onDamage(damage);
  }
  return { blobs, bytes, damaged };
}

/** One blob that the store does not give, or does not let go, is no reason to leave the others unread. */
async function examine(
  store: Store,
  digest: Digest,
  repair: boolean,
  signal: AbortSignal,
): Promise<{ size: number; damage?: Damage }> {
  let size = 0;
  try {
    const blob = await store.open(digest);
    size = blob?.size ?? 0;
    const why =
      blob === undefined
        ? 'it was overwritten by somebody else, or is gone by now'
        : await damageOf(blob, digest, signal);
    if (why === undefined) return { size };
    if (repair) await store.remove(digest);
    return { size, damage: { digest, why, outcome: repair ? 'removed' : 'damaged' } };
  } catch (error) {
    if (signal.aborted) throw error;
    return { size, damage: { digest, why: messageOf(error), outcome: 'unreadable' } };
  }
}

async function damageOf(blob: StoredBlob, digest: Digest, signal: AbortSignal): Promise<string | undefined> {
  const hasher = hasherFor(algorithmOf(digest));
  const write = (chunk: Uint8Array): Promise<void> => {
    hasher.update(chunk);
    return Promise.resolve();
  };
  try {
    if (blob.size > 0) await blob.copyTo(write, { start: 0, end: blob.size - 1 }, signal);
  } finally {
    await blob.close();
  }
  const found = `${algorithmOf(digest)}:${hasher.digest('hex')}`;
  return found === digest ? undefined : `its ${blob.size} bytes have the digest ${found}`;
}
