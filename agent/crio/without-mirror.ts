import { isDeepStrictEqual } from 'node:util';
import { type JsonMap, stringify } from '@iarna/toml';
import { NotTomlError, parseToml } from '../hosts-file.ts';
import { NOTE } from '../hosts-toml.ts';
import { isMarkerLine } from '../marker.ts';
import { parseRegistries, type RegistryEntry, tableOf } from './registries-conf.ts';

/**
 * What somebody made of a drop-in of ours, without the mirror: `undefined` when nothing of theirs is in it.
 *
 * @param mirror the host, with its port, of every location that is ours.
 * @param written what we wrote, as far as we remember.
 * @throws Error when it cannot be read.
 */
export function withoutMirror(text: string, mirror: string, written: string | undefined): string | undefined {
  const wanted = contentWithout(text, mirror);
  if (wanted.entries.length === 0 && Object.keys(wanted.others).length === 0) return undefined;
  if (written !== undefined && isDeepStrictEqual(wanted, contentWithout(written, mirror))) return undefined;
  const lines = text.split('\n').filter((line) => !isMarkerLine(line) && line.trimEnd() !== NOTE);
  const kept = sectionsOf(lines).flatMap((section) =>
    isOurs(section, mirror) ? section.filter((line) => /^\s*#/.test(line)) : section,
  );
  const edited = `${kept.join('\n').trim()}\n`;
  // Somebody may write a mirror in a way that lines do not show: the comments are lost then.
  if (saysTheSame(edited, wanted)) return edited;
  return stringify({ ...wanted.others, registry: wanted.entries.map(tableOf) });
}

interface Content {
  readonly entries: readonly RegistryEntry[];
  /** Everything else in the file, such as short names. */
  readonly others: JsonMap;
}

function contentOf(text: string): Content {
  const { registry: _, ...others } = parseToml(text);
  return { entries: [...parseRegistries(text, 'drop-in').values()], others };
}

function contentWithout(text: string, mirror: string): Content {
  const { entries, others } = contentOf(text);
  return { entries: entries.map((entry) => entryWithout(entry, mirror)), others };
}

function entryWithout(entry: RegistryEntry, mirror: string): RegistryEntry {
  const { prefix, location, insecure, mirrors } = entry;
  const isLast = location !== undefined && isAt(location, mirror);
  return {
    ...entry,
    location: isLast ? prefix : location,
    insecure: insecure && !isLast,
    mirrors: mirrors.filter((one) => !isAt(one.location, mirror)),
  };
}

function isAt(location: string, mirror: string): boolean {
  return location === mirror || location.startsWith(`${mirror}/`);
}

/** The lines before the first table, then one list for each table, beginning with its header. */
function sectionsOf(lines: readonly string[]): string[][] {
  const sections: string[][] = [[]];
  for (const line of lines) {
    if (/^\s*\[/.test(line)) sections.push([]);
    sections.at(-1)?.push(line);
  }
  return sections;
}

function isOurs([header = '', ...lines]: readonly string[], mirror: string): boolean {
  if (!/^\s*\[\[\s*registry\s*\.\s*mirror\s*\]\]/.test(header)) return false;
  try {
    const { location } = parseToml(lines.join('\n'));
    return typeof location === 'string' && isAt(location, mirror);
  } catch (error) {
    if (error instanceof NotTomlError) return false;
    throw error;
  }
}

function saysTheSame(text: string, wanted: Content): boolean {
  try {
    return isDeepStrictEqual(contentOf(text), wanted);
  } catch {
    return false;
  }
}
