import type { Access } from '../process/durable-file.ts';
import { carriedFor, certificatesIn } from './carried-hosts.ts';
import type { DiskFile } from './disk-file.ts';
import type { HostDirectory } from './host-directory.ts';
import { EMPTY_HOSTS_FILE, type HostsFile, parseHosts } from './hosts-file.ts';
import type { Found } from './hosts-toml.ts';
import { type Marker, markerOf, type Verdict } from './marker.ts';
import { idOf, loadOriginal, type Original, originalOf } from './original.ts';
import { withoutMirror } from './without-mirror.ts';

/** What a file of ours is built on. */
export interface Basis extends Found {
  /** As strict as the file that it repeats. */
  readonly access: Partial<Access>;
  /** A user's file that is not saved yet. */
  readonly unsaved?: Original;
}

export interface Sight {
  /** Where the node's file system is mounted. */
  readonly root: string;
  readonly certsDir: string;
  readonly laterDirs: readonly string[];
  readonly directory: HostDirectory;
  readonly disk: DiskFile;
  /** Of the file; `undefined` when there is none. */
  readonly verdict: Verdict | undefined;
  readonly written: string | undefined;
  readonly originals: string;
}

/** Finds what the node would go by without weir: the user's file, the default's hosts, certificates, or nothing. */
export async function findBasis(sight: Sight): Promise<Basis> {
  const { directory, disk, verdict } = sight;
  if (verdict?.kind === 'foreign' && disk.kind === 'file') {
    const unsaved = originalOf(directory.name, disk);
    return { ...(await fromOriginal(sight, unsaved, verdict.file)), unsaved };
  }
  const marker = markerAt(verdict, sight.written);
  const was = marker?.was;
  if (marker !== undefined && typeof was === 'object') {
    const original = await loadOriginal(sight.originals, was.original);
    if (original !== undefined) return fromOriginal(sight, original, parseHosts(original.text));
    return { was, access: {}, file: fromOurs(sight, marker) };
  }
  if (!directory.exists || (was === 'no directory' && !directory.hasMore)) {
    const { file, access } = await carriedFor(directory.host, sight);
    return { was: 'no directory', file, access: access === undefined ? {} : narrow(access) };
  }
  return { was: was ?? 'no file', file: await certificatesIn(directory.path, sight.root), access: {} };
}

/** The marker of the file, or of what we wrote there when the file is gone. */
export function markerAt(verdict: Verdict | undefined, written: string | undefined): Marker | undefined {
  if (verdict !== undefined) return 'marker' in verdict ? verdict.marker : undefined;
  return written === undefined ? undefined : markerOf(written);
}

async function fromOriginal(
  { directory, root }: Sight,
  original: Original,
  parsed: HostsFile,
): Promise<Basis> {
  // An empty file is none to containerd: it goes on to the certificates.
  const file = original.text === '' ? await certificatesIn(directory.path, root) : parsed;
  return { was: { original: idOf(original) }, file, access: narrow(original) };
}

/** The original is lost, but our file repeats it. */
function fromOurs({ disk, verdict }: Sight, { mirror }: Marker): HostsFile {
  return disk.kind === 'file' && verdict?.kind === 'ours'
    ? withoutMirror(disk.text, mirror).file
    : EMPTY_HOSTS_FILE;
}

/** Nobody may read more than before, since headers can be credentials; and nobody but the owner may write. */
function narrow({ mode, uid, gid }: Access): Access {
  return { mode: mode & 0o644, uid, gid };
}
