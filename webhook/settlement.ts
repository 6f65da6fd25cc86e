import type { Config } from '../config/config.ts';
import { isLoopback } from '../oci/host.ts';
import type { ClusterView } from './cluster-view.ts';
import type { FallbackNode } from './fallback-node.ts';
import { decideImage, type LeftBecause } from './image-decision.ts';
import type { KnownNames } from './known-names.ts';
import type { Found, ManifestProbe } from './manifest-probe.ts';
import type { Pod, PodImage } from './pod.ts';
import { type NewName, originalsOf } from './pod-patch.ts';
import type { RegistryPlace } from './rewrite.ts';

/** Why an image has its own name. */
type OwnBecause = LeftBecause | Exclude<Found, 'there'>;

/** What became of one image, and why it was not rewritten. */
export type Outcome =
  | { readonly kind: 'rewritten'; readonly image: string; readonly name: string }
  | { readonly kind: 'restored'; readonly image: string; readonly name: string; readonly why: OwnBecause }
  | { readonly kind: 'left'; readonly image: string; readonly why: OwnBecause };

/** How the images of a Pod are to be named, and how that came about. */
export interface Settlement {
  readonly changes: readonly NewName[];
  /** The original names of all that have others then. */
  readonly originals: ReadonlyMap<string, string>;
  readonly outcomes: readonly Outcome[];
}

export interface SettlementOptions {
  readonly pod: Pod;
  readonly images: readonly PodImage[];
  /** Where the Pod will be: a node, every node (`any`), or one that mirrors by itself (`mirrored`). */
  readonly node: FallbackNode | 'any' | 'mirrored';
  readonly isMade: boolean;
  readonly config: Config;
  readonly registry: RegistryPlace;
  readonly names: KnownNames;
  readonly probe: Pick<ManifestProbe, 'look'>;
  readonly cluster: Pick<ClusterView, 'isDeserted'>;
}

/**
 * Settles what the images of a Pod are called: each by its original name, unless the node needs another and the
 * mirror has that very manifest. So a Pod that comes to another node than it was first meant for gets its own names back.
 */
export async function settle(options: SettlementOptions): Promise<Settlement> {
  const { pod, images, names } = options;
  const known = originalsOf(pod, images, names);
  const settled = await Promise.all(
    images.map(async (image) => {
      const original = known.get(image.key) ?? image.image;
      const { name, why } = await nameFor({ ...image, image: original }, options);
      return { image, original, ...settledName(image, original, name, options.isMade), why };
    }),
  );
  return {
    changes: settled.flatMap(({ image, name }) => (name === image.image ? [] : [{ image, name }])),
    originals: new Map(
      settled.flatMap(({ image, original, name }) => (name === original ? [] : [[image.key, original]])),
    ),
    outcomes: settled.map(outcomeOf),
  };
}

interface Settled extends Name {
  readonly image: PodImage;
  readonly original: string;
}

function outcomeOf({ image: { image }, original, name, why = 'untouched' }: Settled): Outcome {
  // The image of a volume that was rewritten in time needs no change any more.
  if (name === image)
    return { kind: 'left', image, why: why === 'volume' && name !== original ? 'untouched' : why };
  return name === original ? { kind: 'restored', image, name, why } : { kind: 'rewritten', image, name };
}

interface Name {
  readonly name: string;
  readonly why?: OwnBecause | undefined;
}

async function nameFor(image: PodImage, options: SettlementOptions): Promise<Name> {
  const { node, isMade, config, registry, probe, cluster } = options;
  const own = (why: OwnBecause): Name => ({ name: image.image, why });
  if (node === 'mirrored') return own('mirrored');
  const where = node === 'any' ? undefined : node;
  const decision = decideImage(image, { config, registry, node: where, isMade });
  if (decision.kind === 'leave') return own(decision.why);
  const { manifest, image: name, to } = decision.rewrite;
  const found = await probe.look(manifest);
  if (found === 'there' && where !== undefined && isLoopback(to) && (await cluster.isDeserted(where)))
    return own('no-door');
  return found === 'there' ? { name } : own(found);
}

/** A volume of a Pod that is there keeps the name that it has. */
function settledName(image: PodImage, original: string, name: string, isMade: boolean): { name: string } {
  return { name: image.isVolume && isMade && name === original ? image.image : name };
}
