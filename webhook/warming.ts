import type { Config } from '../config/config.ts';
import type { FallbackNode } from './fallback-node.ts';
import { decideRewrite } from './image-decision.ts';
import type { ManifestProbe } from './manifest-probe.ts';
import type { PodImage } from './pod.ts';
import { type RegistryPlace, rewriteImage } from './rewrite.ts';

export interface WarmingOptions {
  readonly config: Config;
  readonly registry: RegistryPlace;
  readonly needs: readonly FallbackNode[];
  readonly probe: Pick<ManifestProbe, 'warm'>;
}

/** Has the mirror asked for what will be wanted if the Pod comes to one of the nodes that need rewriting. */
export function warm(images: readonly PodImage[], { config, registry, needs, probe }: WarmingOptions): void {
  for (const image of images) {
    const rewrite = rewriteImage(image.image, config, registry);
    const isWanted = (node: FallbackNode): boolean =>
      decideRewrite(image, rewrite, { config, node, isMade: false }).kind === 'ask';
    if (rewrite.kind === 'rewrite' && needs.some(isWanted)) probe.warm(rewrite.manifest);
  }
}
