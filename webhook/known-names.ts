import type { Config } from '../config/config.ts';
import { hostPrefix } from '../config/routing.ts';
import { isLoopback } from '../oci/host.ts';
import { formatReference } from '../oci/reference.ts';
import { type RegistryPlace, referenceIn, rewriteImage } from './rewrite.ts';

/** What the new names of images follow from. */
export interface Naming {
  readonly config: Config;
  readonly registry: RegistryPlace;
}

/** Edits that Pods may wait through. */
const MAX_NAMINGS = 16;

/**
 * The names that images were given, by this configuration and those before it: after an edit there are still Pods that
 * wait for a node under a name that it does not give any more.
 */
export class KnownNames {
  /** The newest first. */
  #namings: readonly Naming[] = [];

  /** This is in force from now on. */
  note({ config, registry }: Naming): void {
    // What was rewritten while it was switched on has its name still.
    const naming = { config: { ...config, enabled: true }, registry };
    this.#namings = [naming, ...this.#namings].slice(0, MAX_NAMINGS);
  }

  /**
   * Whether `image` is what `original` was called in a mirror. Only an upstream's image can have been called otherwise,
   * and only by a mirror that was configured, or by a door of a node, on whatever port that was.
   */
  isNameOf(original: string, image: string): boolean {
    return this.#namings.some((naming) => isNameBy(naming, original, image));
  }
}

function isNameBy({ config, registry }: Naming, original: string, image: string): boolean {
  const rewrite = rewriteImage(original, config, registry);
  if (rewrite.kind === 'rewrite' && rewrite.image === image) return true;
  const [before, now] = [referenceIn(original), referenceIn(image)];
  if (before === undefined || now === undefined) return false;
  if (!config.upstreams.has(before.host) || !isLoopback(now.host)) return false;
  const repository = `${hostPrefix(before.host)}/${before.repository}`;
  return image === formatReference({ ...before, host: now.host, repository });
}
