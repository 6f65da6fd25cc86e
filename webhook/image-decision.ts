import type { Config } from '../config/config.ts';
import { isLoopback } from '../oci/host.ts';
import { type FallbackNode, hasImage, needsRewriting } from './fallback-node.ts';
import type { PodImage } from './pod.ts';
import { type RegistryPlace, type Rewrite, rewriteImage, type Unnamed } from './rewrite.ts';

/** Why an image keeps its name. */
export type LeftBecause =
  /** No upstream of the configuration, or has its new name already. */
  | 'untouched'
  | 'unreadable'
  | Unnamed
  /** The node's runtime mirrors that upstream by itself. */
  | 'mirrored'
  | 'pull-never'
  | 'on-node'
  /** Its runtime would ask for TLS where there is none. */
  | 'plain-http'
  /** A volume's image, of a Pod that is there already. */
  | 'volume';

export type ImageDecision =
  | { readonly kind: 'leave'; readonly why: LeftBecause }
  /** Its name is to change if the mirror has it. */
  | { readonly kind: 'ask'; readonly rewrite: Rewrite & { readonly kind: 'rewrite' } };

export interface ImageSurroundings {
  readonly config: Config;
  readonly registry: RegistryPlace;
  /** `undefined` where every node is meant. */
  readonly node: FallbackNode | undefined;
  /** Whether the Pod is there already. */
  readonly isMade: boolean;
}

/** What is to become of one image, as far as it can be told without asking the mirror. */
export function decideImage(image: PodImage, around: ImageSurroundings): ImageDecision {
  return decideRewrite(image, rewriteImage(image.image, around.config, around.registry), around);
}

/** The same, of a name that is known already. */
export function decideRewrite(
  image: PodImage,
  rewrite: Rewrite,
  { config, node, isMade }: Omit<ImageSurroundings, 'registry'>,
): ImageDecision {
  if (rewrite.kind === 'leave') return rewrite;
  if (node !== undefined && config.fallback !== 'always' && !needsRewriting(node, rewrite.original.host))
    return leave('mirrored');
  if (image.pullPolicy === 'Never') return leave('pull-never');
  // With `Always` the registry is asked whatever is there.
  if (node !== undefined && image.pullPolicy !== 'Always' && hasImage(node, rewrite.original))
    return leave('on-node');
  if (rewrite.kind === 'unnamed') return leave(rewrite.why);
  if (rewrite.isPlain && (!isLoopback(rewrite.to) || node?.runtime === 'cri-o')) return leave('plain-http');
  if (isLoopback(rewrite.to) && node?.hasDoor === false) return leave('no-door');
  if (image.isVolume && isMade) return leave('volume');
  return { kind: 'ask', rewrite };
}

function leave(why: LeftBecause): ImageDecision {
  return { kind: 'leave', why };
}
