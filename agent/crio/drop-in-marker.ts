import { createHash } from 'node:crypto';
import * as z from 'zod';
import { parseJson } from '../../oci/json.ts';
import { messageOf } from '../../process/file-problem.ts';
import type { PresentFile } from '../disk-file.ts';
import { NOTE } from '../hosts-toml.ts';
import { isMarkerLine } from '../marker.ts';
import { parseRegistries } from './registries-conf.ts';

/** Whose the drop-in is. Nothing was there before it: what others have to say is in files of their own. */
export type DropInVerdict =
  | { readonly kind: 'ours' }
  /** Ours, but cut short or unreadable. */
  | { readonly kind: 'damaged' }
  /** Somebody has edited ours, or put a file of that name there: it is theirs. */
  | { readonly kind: 'theirs'; readonly reason: string };

/**
 * Puts the marker before the text of a drop-in, with a hash that no longer fits once somebody edits it, and the
 * host by which our mirror is named in it.
 */
export function markDropIn(text: string, mirror: string): string {
  const body = `${NOTE}\n${text}`;
  return `${START}${JSON.stringify({ sha256: hashOf(body), mirror }).slice(1)}\n${body}`;
}

/** The host by which our mirror is named in a file of ours; `undefined` when it says nothing of that. */
export function mirrorIn(text: string): string | undefined {
  const line = text.split('\n').find(isMarkerLine);
  return schema.safeParse(parseJson(line?.slice(START.length - 1) ?? '')).data?.mirror;
}

/** `written` is what we wrote there last, as far as we remember. */
export function judgeDropIn({ text, isUtf8 }: PresentFile, written: string | undefined): DropInVerdict {
  const [first = '', ...rest] = text.split('\n');
  const marker = schema.safeParse(parseJson(first.slice(START.length - 1)));
  if (isMarkerLine(first) && marker.success && marker.data.sha256 === hashOf(rest.join('\n')))
    return { kind: 'ours' };
  // Ends too early, is empty, or is the run of zero bytes that some file systems leave after a power cut.
  if (written !== undefined && (written.startsWith(text) || /^\0+$/.test(text))) return { kind: 'damaged' };
  const isOfOurs = isMarkerLine(first) || written !== undefined;
  try {
    if (!isUtf8) throw new Error('not UTF-8');
    parseRegistries(text, 'drop-in');
    return { kind: 'theirs', reason: isOfOurs ? 'was edited by hand' : 'is not of weir' };
  } catch (error) {
    return isOfOurs
      ? { kind: 'damaged' }
      : { kind: 'theirs', reason: `is not of weir, and cannot be read: ${messageOf(error)}` };
  }
}

const START = '# weir {';
const schema = z.strictObject({ sha256: z.string(), mirror: z.string() });

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
