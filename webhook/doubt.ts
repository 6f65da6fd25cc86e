import type { Outcome } from './settlement.ts';

/** An image that should have another name and keeps its own, for a reason that somebody may want to know. */
export interface Doubt {
  readonly image: string;
  readonly why: keyof typeof SENTENCES;
}

const SENTENCES = {
  absent: 'the mirror has no such manifest',
  refused:
    'the mirror does not give that manifest to everybody: give its upstream credentials and "access: everyone"',
  down: 'the mirror cannot be asked for that manifest',
  slow: 'the mirror did not say in time whether it has that manifest',
  'plain-http':
    "this node's runtime would ask the mirror for TLS, which it does not speak: set rewriteTo to a host that does",
  'no-door': 'no agent runs on this node: set rewriteTo to a host under which it reaches the registry',
  volume: 'the image of a volume cannot be changed once its Pod is there: name the node in the Pod',
  owner: 'its owner compares images (skipOwners)',
} as const;

/** `undefined` when all went as it is to go. */
export function doubtOf(outcome: Outcome): Doubt | undefined {
  if (outcome.kind !== 'left') return undefined;
  const { image, why } = outcome;
  return isDoubt(why) ? { image, why } : undefined;
}

/** One sentence for a person: the image first, since there may be several. */
export function tellDoubt({ image, why }: Doubt): string {
  return `weir leaves ${image} as it is: ${SENTENCES[why]}`;
}

function isDoubt(why: string): why is Doubt['why'] {
  return Object.hasOwn(SENTENCES, why);
}
