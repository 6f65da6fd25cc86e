import type { Config } from '../config/config.ts';
import type { Endpoint } from '../config/endpoint.ts';
import { hostPrefix, routeFor } from '../config/routing.ts';
import { isLoopback, parseHost } from '../oci/host.ts';
import { formatReference, parseReference, type Reference } from '../oci/reference.ts';
import { MAX_NAME_LENGTH } from '../oci/repository.ts';

/** Where our registry is. */
export interface RegistryPlace {
  /** The origin at which the webhook asks it: `http://weir.weir.svc:5000`. */
  readonly url: string;
  /** `HOST[:PORT]` under which nodes find it. */
  readonly rewriteTo: string;
  /** The door of the nodes, where it is known: nobody listens at any other address of their loopback. */
  readonly door?: string;
}

/** A manifest, by the address under which it is asked for. */
export interface ManifestPlace {
  readonly origin: string;
  readonly repository: string;
  /** A digest where there is one, else a tag. */
  readonly reference: string;
}

export type Rewrite =
  | {
      readonly kind: 'rewrite';
      /** The registry host that the name had. */
      readonly host: string;
      readonly original: Reference;
      readonly image: string;
      /** The host of the new name. */
      readonly to: string;
      /** Whether a node has to ask it without TLS. */
      readonly isPlain: boolean;
      readonly manifest: ManifestPlace;
    }
  /** `unreadable` is no image reference; `untouched` is no upstream's. */
  | { readonly kind: 'leave'; readonly why: 'untouched' | 'unreadable' }
  /** It should have another name, and there is none that leads to it. */
  | { readonly kind: 'unnamed'; readonly why: Unnamed; readonly original: Reference };

export type Unnamed =
  | AstrayBecause
  | 'too-long'
  /** As an image's name it would mean another image, or none. */
  | 'misread';

/** `rewriteTo` is an upstream, or an address of the loopback that is not the door's. */
export type AstrayBecause = 'upstream' | 'no-door';

/** Why names that begin with `rewriteTo` would not lead to our registry; `undefined` when they do. */
export function astray({ upstreams }: Config, { rewriteTo, door }: RegistryPlace): AstrayBecause | undefined {
  if (upstreams.has(parseHost(rewriteTo) ?? rewriteTo)) return 'upstream';
  return isLoopback(rewriteTo) && door !== undefined && door !== rewriteTo ? 'no-door' : undefined;
}

/** The same as a sentence for whoever looks after weir. */
export function tellAstray(config: Config, registry: RegistryPlace): string | undefined {
  const { rewriteTo, door } = registry;
  const sentences = {
    upstream: `${rewriteTo} (rewriteTo, or webhook.rewriteTo of the chart) is an upstream, and not weir's registry`,
    'no-door': `nodes have their door at ${door}, and not at ${rewriteTo} (rewriteTo)`,
  };
  const why = astray(config, registry);
  return why === undefined ? undefined : `only mirrors of nodes give images other names: ${sentences[why]}`;
}

/** The name under which a node gets an image through the mirror; tag and digest stay as they are. */
export function rewriteImage(image: string, config: Config, registry: RegistryPlace): Rewrite {
  const original = referenceIn(image);
  if (original === undefined) return { kind: 'leave', why: 'unreadable' };
  if (original.host === registry.rewriteTo || isUnderMirror(original, config))
    return { kind: 'leave', why: 'untouched' };
  const route = routeFor(config, original.host);
  if (route.kind === 'untouched') return { kind: 'leave', why: 'untouched' };
  const why = route.kind === 'node' ? undefined : astray(config, registry);
  if (why !== undefined) return { kind: 'unnamed', why, original };
  const place = route.kind === 'node' ? mirrorPlace(route.mirror) : registryPlace(registry, original.host);
  const repository = place.prefix === '' ? original.repository : `${place.prefix}/${original.repository}`;
  const name = formatReference({ ...original, host: place.host, repository });
  if (`${place.host}/${repository}`.length > MAX_NAME_LENGTH)
    return { kind: 'unnamed', why: 'too-long', original };
  if (!isReadAsWritten(name)) return { kind: 'unnamed', why: 'misread', original };
  const reference = original.digest ?? original.tag ?? 'latest';
  return {
    kind: 'rewrite',
    host: original.host,
    original,
    image: name,
    to: place.host,
    isPlain: place.isPlain,
    manifest: { origin: place.origin, repository, reference },
  };
}

/** Whether runtimes find in a name what it was made of, so that it cannot be another image's. */
function isReadAsWritten(name: string): boolean {
  const read = referenceIn(name);
  return read !== undefined && formatReference(read) === name;
}

/**
 * Whether this is the name that an image has in a mirror which nodes ask by its own name. Its host may be an upstream
 * itself, and so may everything on it where no path is the mirror's own.
 */
function isUnderMirror({ host, repository }: Reference, { upstreams }: Config): boolean {
  return upstreams.values().some(({ via, mirror }) => {
    if (via !== 'node' || mirror === undefined || mirror.repositoryPrefix === '') return false;
    const place = mirrorPlace(mirror);
    return place.host === host && repository.startsWith(`${place.prefix}/`);
  });
}

/** `undefined` for what is no image reference. */
export function referenceIn(image: string): Reference | undefined {
  try {
    return parseReference(image);
  } catch {
    return undefined;
  }
}

interface Place {
  readonly origin: string;
  readonly host: string;
  readonly prefix: string;
  readonly isPlain: boolean;
}

function registryPlace({ url, rewriteTo }: RegistryPlace, host: string): Place {
  return { origin: url, host: rewriteTo, prefix: hostPrefix(host), isPlain: isLoopback(rewriteTo) };
}

function mirrorPlace({ origin, repositoryPrefix }: Endpoint): Place {
  const { host, protocol } = new URL(origin);
  return { origin, host, prefix: repositoryPrefix, isPlain: protocol === 'http:' };
}
