import { formatUpstreams, REASONS_ANNOTATION, UPSTREAMS_ANNOTATION } from './node-upstreams.ts';

/** `kubectl get nodes -L weir.dev/mirror` */
export const MIRROR_LABEL = 'weir.dev/mirror';
/** First 12 hex digits of the SHA-256 of the configuration in force on the node. */
export const CONFIG_ANNOTATION = 'weir.dev/config';
/** Whether the runtime was seen to obey: `proven`, `bypassed` or `unproven`. */
export const PROOF_ANNOTATION = 'weir.dev/proof';
/** Why the label does not say `configured`, or the proof not `proven`. */
export const REASON_ANNOTATION = 'weir.dev/mirror-reason';
/** `open` while the door listens on the node, so that a name which leads there can be pulled; away otherwise. */
export const DOOR_ANNOTATION = 'weir.dev/door';

/**
 * - `configured`: pulls of every configured upstream go as the configuration says;
 * - `fallback`: some do not, and the reason says which;
 * - `off`: the configuration says `enabled: false`.
 */
export type NodeMirror = 'configured' | 'fallback' | 'off';

export interface NodeReport {
  readonly mirror: NodeMirror;
  /** SHA-256 of the configuration in force, in hex. */
  readonly configHash: string;
  readonly reason?: string;
  readonly proof?: string;
  /** Whether the door listens on the node. */
  readonly isDoorOpen: boolean;
  /** How each configured upstream stands on the node (`docker.io` → `configured`); none when weir is switched off. */
  readonly upstreams: ReadonlyMap<string, string>;
  /** Of those that are not as the configuration says, why in a word. */
  readonly reasons: ReadonlyMap<string, string>;
}

const MAX_REASON = 1_000;

function shortened(reason: string | undefined): string | null {
  return reason?.slice(0, MAX_REASON) ?? null;
}

/** What the node is to say by its label and annotations. */
export function patchOf({
  mirror,
  configHash,
  reason,
  proof,
  isDoorOpen,
  upstreams,
  reasons,
}: NodeReport): object {
  return patch({
    mirror,
    config: configHash.slice(0, 12),
    reason: shortened(reason),
    proof: proof ?? null,
    door: isDoorOpen ? 'open' : null,
    upstreams: formatUpstreams(upstreams),
    reasons: reasons.size === 0 ? null : formatUpstreams(reasons),
  });
}

/** The last word about a node: nothing, or why weir could not leave it. */
export function patchOfEnd(reason: string | undefined): object {
  return reason === undefined
    ? patch({ mirror: null, config: null, reason: null, proof: null, ...OVER })
    : patch({ mirror: 'fallback', reason: shortened(reason), proof: null, ...OVER });
}

/** What holds only while the agent runs is taken back; all else stays as it is. */
export const PARTING_PATCH = { metadata: { annotations: { [DOOR_ANNOTATION]: null } } };

/** Of a node without files of weir. */
const OVER = { door: null, upstreams: null, reasons: null } as const;

/** `null` takes away, what is missing stays as it is. */
function patch(of: {
  readonly mirror: NodeMirror | null;
  readonly config?: string | null;
  readonly reason: string | null;
  readonly proof: string | null;
  readonly door: 'open' | null;
  readonly upstreams: string | null;
  readonly reasons: string | null;
}): object {
  const { mirror, config, reason, proof, door, upstreams, reasons } = of;
  const annotations = {
    [CONFIG_ANNOTATION]: config,
    [REASON_ANNOTATION]: reason,
    [PROOF_ANNOTATION]: proof,
    [DOOR_ANNOTATION]: door,
    [UPSTREAMS_ANNOTATION]: upstreams,
    [REASONS_ANNOTATION]: reasons,
  };
  return { metadata: { labels: { [MIRROR_LABEL]: mirror }, annotations } };
}
