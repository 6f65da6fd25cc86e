import { createHash } from 'node:crypto';
import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import { messageOf } from '../process/file-problem.ts';
import { type HostsFile, namesHost, parseHosts } from './hosts-file.ts';

/** What stood where a file of ours stands now. */
export type Was = 'no directory' | 'no file' | { readonly original: string };

/**
 * The first line of every file of ours. It says all that is needed to take the file back, so that a node whose
 * state directory is gone can still be cleaned.
 */
export interface Marker {
  /** The host that we put first, as it stands in the file. */
  readonly mirror: string;
  readonly was: Was;
}

/** Whose a hosts.toml is. */
export type Verdict =
  | { readonly kind: 'ours'; readonly marker: Marker }
  /** Ours, but cut short or unreadable. Without a marker nothing tells any more what was there before. */
  | { readonly kind: 'damaged'; readonly marker: Marker | undefined }
  | { readonly kind: 'edited'; readonly marker: Marker }
  | { readonly kind: 'foreign'; readonly file: HostsFile }
  | { readonly kind: 'unparsable'; readonly reason: string };

interface FileText {
  readonly text: string;
  readonly isUtf8: boolean;
}

/** Puts the marker before a text, with a hash that no longer fits once somebody edits either. */
export function mark(text: string, marker: Marker): string {
  const line = JSON.stringify({ sha256: hashOf(text, marker), mirror: marker.mirror, was: marker.was });
  // JSON escapes all control characters but this one, and TOML allows none in a comment.
  return `${START}${line.slice(1).replaceAll('\u007f', '\\u007f')}\n${text}`;
}

/** The marker before a text of somebody else's, or what is left of ours: it only tells what was there before. */
export function refer(text: string, marker: Marker): string {
  return mark('', marker) + text;
}

/** `written` is what we wrote there last, as far as we remember. */
export function judge({ text, isUtf8 }: FileText, written: string | undefined): Verdict {
  const found = readMarker(text);
  if (found?.intact === true) return { kind: 'ours', marker: found.marker };
  const remembered = written === undefined ? undefined : readMarker(written)?.marker;
  if (written !== undefined && isCutOff(text, written)) return { kind: 'damaged', marker: remembered };
  const marker = found?.marker ?? (text.startsWith(START) ? remembered : undefined);
  if (text.startsWith(START) && !text.includes('\n')) return { kind: 'damaged', marker };
  try {
    if (!isUtf8) throw new Error('not UTF-8');
    const file = parseHosts(text);
    if (marker !== undefined) return { kind: 'edited', marker };
    // A formatter takes comments away, and the marker with them.
    return remembered !== undefined && namesHost(file, remembered.mirror)
      ? { kind: 'edited', marker: remembered }
      : { kind: 'foreign', file };
  } catch (error) {
    const ours =
      marker ?? (remembered !== undefined && text.includes(remembered.mirror) ? remembered : undefined);
    return ours === undefined
      ? { kind: 'unparsable', reason: messageOf(error) }
      : { kind: 'damaged', marker: ours };
  }
}

/** The marker of a text of ours, wherever somebody may have moved its line to. */
export function markerOf(text: string): Marker | undefined {
  return readMarker(text)?.marker;
}

export function isMarkerLine(line: string): boolean {
  return line.startsWith(START);
}

/**
 * Ends inside a line, is empty, or is the run of zero bytes that some file systems leave after a power cut. One that
 * ends where a line does may be somebody's who took the rest out.
 */
function isCutOff(text: string, written: string): boolean {
  if (/^\0*$/.test(text)) return true;
  return written.startsWith(text) && !text.endsWith('\n') && written.at(text.length) !== '\n';
}

const START = '# weir {';
const LINE = /^# weir (\{.*\})[ \t]*\r?$/m;

const markerSchema = z.strictObject({
  sha256: z.string(),
  mirror: z.string(),
  was: z.union([
    z.enum(['no directory', 'no file']),
    z.strictObject({ original: z.string().regex(/^[0-9a-f]{32}$/) }),
  ]),
});

function readMarker(text: string): { marker: Marker; intact: boolean } | undefined {
  const line = LINE.exec(text);
  const parsed = markerSchema.safeParse(parseJson(line?.[1] ?? ''));
  if (line === null || !parsed.success) return undefined;
  const { sha256, ...marker } = parsed.data;
  const rest = text.slice(0, line.index) + text.slice(line.index + line[0].length + 1);
  return { marker, intact: sha256 === hashOf(rest, marker) };
}

function hashOf(text: string, { mirror, was }: Marker): string {
  return createHash('sha256')
    .update(`${JSON.stringify([mirror, was])}\n${text}`)
    .digest('hex');
}
