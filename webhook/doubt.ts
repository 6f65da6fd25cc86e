import type { Outcome } from './settlement.ts';

/** An image that should have another name and keeps its own, for a reason that somebody may want to know. */
export interface Doubt {
  /** All of the Pod's when there is none. */
  readonly image?: string;
  readonly why: keyof typeof SENTENCES;
  /** What else is to be said. */
  readonly more?: string;
}

const SENTENCES = {
  absent: 'the mirror has no such manifest',
  refused:
    'the mirror does not give that manifest to everybody: give its upstream credentials and "access: everyone"',
  down: 'the mirror cannot be asked for that manifest',
  slow: 'the mirror did not say in time whether it has that manifest',
  'plain-http':
    "this node's runtime would ask the mirror for TLS, which it does not speak: set rewriteTo to a host that does",
  'no-door':
    "no agent's door is open on this node, or rewriteTo is not its address: set it to a host under which the node reaches the registry, or see what the agent says",
  upstream:
    "rewriteTo is an upstream, and not weir's registry: set it to a host under which nodes reach that",
  volume: 'the image of a volume cannot be changed once its Pod is there: name the node in the Pod',
  owner: 'its owner compares images (skipOwners)',
  'too-long': 'its name in the mirror would be longer than a name may be',
  misread:
    'its name in the mirror would be read as that of another image, or of none: give the mirror, or rewriteTo, a host with a dot or a port',
  deadline: 'that could not be decided in time',
  failed: 'the webhook could not do its work',
  starting: 'the webhook has just started, and does not know the nodes yet',
  changed: 'the Pod was changed meanwhile, or the cluster does not let it be changed',
} as const;

/** `undefined` when all went as it is to go. */
export function doubtOf(outcome: Outcome): Doubt | undefined {
  if (outcome.kind === 'rewritten' || !isDoubt(outcome.why)) return undefined;
  const image = outcome.kind === 'restored' ? outcome.name : outcome.image;
  return { image, why: outcome.why };
}

/** One sentence for a person: the image first, since there may be several. */
export function tellDoubt({ image, why, more }: Doubt): string {
  const what = image === undefined ? 'the images of a Pod as they are' : `${image} as it is`;
  return `weir leaves ${what}: ${SENTENCES[why]}${more === undefined ? '' : ` (${more})`}`;
}

export function isDoubt(why: string): why is Doubt['why'] {
  return Object.hasOwn(SENTENCES, why);
}
