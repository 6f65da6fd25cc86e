import * as z from 'zod';
import { parseJson } from '../oci/json.ts';
import type { KnownNames } from './known-names.ts';
import type { Pod, PodImage } from './pod.ts';

/** JSON: the names that rewritten images had, by {@link PodImage.key}. */
export const ORIGINALS_ANNOTATION = 'weir.dev/original-images';

/** One step of a JSON Patch (RFC 6902). */
export interface Operation {
  readonly op: 'test' | 'add' | 'replace' | 'remove';
  readonly path: string;
  readonly value?: unknown;
}

/** An image and the name that it is to have. */
export interface NewName {
  readonly image: PodImage;
  readonly name: string;
}

const originalsSchema = z.record(z.string(), z.string());

/**
 * The original names of those images that were rewritten. The annotation is taken at its word only where what it says is
 * known to have got the name that is there: nobody gets another image by it.
 */
export function originalsOf(
  pod: Pod,
  images: readonly PodImage[],
  names: Pick<KnownNames, 'isNameOf'>,
): ReadonlyMap<string, string> {
  const text = pod.metadata.annotations?.[ORIGINALS_ANNOTATION];
  const told = text === undefined ? undefined : originalsSchema.safeParse(parseJson(text)).data;
  const originals = new Map<string, string>();
  for (const { key, image } of told === undefined ? [] : images) {
    const original = told !== undefined && Object.hasOwn(told, key) ? told[key] : undefined;
    if (original !== undefined && names.isNameOf(original, image)) originals.set(key, original);
  }
  return originals;
}

/**
 * The patch that gives images of a Pod other names, and does nothing to a Pod that is not as it was seen.
 *
 * @param originals what the annotation is to say; `undefined` leaves it alone.
 * @param options.isUnbound refuses a Pod that is on a node already, whose containers would be started anew.
 */
export function podPatch(
  pod: Pod,
  changes: readonly NewName[],
  originals: ReadonlyMap<string, string> | undefined,
  { isUnbound = false }: { readonly isUnbound?: boolean } = {},
): readonly Operation[] {
  const { uid } = pod.metadata;
  const images = changes.flatMap(({ image, name }): Operation[] => [
    { op: 'test', path: image.pointer, value: image.image },
    { op: 'replace', path: image.pointer, value: name },
  ]);
  return [
    ...(uid ? [{ op: 'test', path: '/metadata/uid', value: uid } as const] : []),
    // A value that is null is what is not there (as the API server's implementation takes it).
    ...(isUnbound ? [{ op: 'test', path: '/spec/nodeName', value: null } as const] : []),
    ...images,
    ...(originals === undefined ? [] : annotationPatch(pod, originals)),
  ];
}

function annotationPatch({ metadata }: Pod, originals: ReadonlyMap<string, string>): readonly Operation[] {
  const { annotations } = metadata;
  const path = `/metadata/annotations/${ORIGINALS_ANNOTATION.replace('/', '~1')}`;
  const before = annotations?.[ORIGINALS_ANNOTATION];
  if (originals.size === 0) return before === undefined ? [] : [{ op: 'remove', path }];
  const value = JSON.stringify(Object.fromEntries(originals));
  if (value === before) return [];
  if (annotations) return [{ op: 'add', path, value }];
  const all = '/metadata/annotations';
  return [
    { op: 'test', path: all, value: null },
    { op: 'add', path: all, value: { [ORIGINALS_ANNOTATION]: value } },
  ];
}
