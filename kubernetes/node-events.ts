import type { Logger } from 'pino';
import { Latest } from '../process/latest.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import type { Kubernetes, ObjectOf } from './api.ts';
import { MIRROR_LABEL, type NodeReport, PROOF_ANNOTATION } from './node-annotations.ts';
import { parseUpstreams, UPSTREAMS_ANNOTATION } from './node-upstreams.ts';
import { reportEvent } from './report-event.ts';

/**
 * The reason of an Event, in which a node has come to another state:
 *
 * - `MirrorConfigured`: pulls of every configured upstream go as the configuration says;
 * - `MirrorFallback`: some do not;
 * - `MirrorBypassed`: none does, since the runtime was seen not to ask the mirror;
 * - `MirrorWithdrawn`: they go to the upstreams until the mirror is well again;
 * - `MirrorOff`: the configuration says `enabled: false`.
 */
export type NodeEventReason =
  | 'MirrorConfigured'
  | 'MirrorFallback'
  | 'MirrorBypassed'
  | 'MirrorWithdrawn'
  | 'MirrorOff';

export interface NodeEventsOptions {
  readonly kubernetes: Kubernetes;
  readonly node: string;
  /** The program (`weir-agent`). */
  readonly reporter: string;
  readonly log: Logger;
  /** Milliseconds from one Event to the next: a node that comes and goes is told of as it is then. */
  readonly restMs?: number;
}

const REST_MS = 60_000;
/** Upstreams in these states have nothing to do with a mirror that is well. */
const UNHARMED: ReadonlySet<string> = new Set(['configured', 'overridden', 'withdrawn']);

interface News {
  readonly state: NodeEventReason;
  readonly message: string;
}

/** Tells of a node that comes to another state, by an Event of that node. */
export class NodeEvents {
  readonly #options: NodeEventsOptions;
  readonly #stop = new AbortController();
  readonly #latest: Latest<News>;
  /** The state that was told, or need not be. */
  #told: NodeEventReason | undefined;
  /** The state that was heard of last. */
  #heard: NodeEventReason | undefined;

  constructor(options: NodeEventsOptions) {
    this.#options = options;
    this.#latest = new Latest<News>({ act: (news) => this.#tell(news), failed: () => undefined });
  }

  /** With the node as the agent found it: what it says of itself already is not told again. */
  begin(node: ObjectOf<'nodes'>): void {
    this.#told = stateOfNode(node);
    this.#heard = this.#told;
  }

  hear(report: NodeReport): void {
    const state = eventReason(report);
    if (state === this.#heard) return;
    this.#heard = state;
    this.#latest.put({ state, message: messageOf(state, report) });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#latest.close();
  }

  async #tell({ state, message }: News): Promise<void> {
    if (state === this.#told) return;
    this.#told = state;
    const { kubernetes, node, reporter, log, restMs = REST_MS } = this.#options;
    const type = state === 'MirrorConfigured' || state === 'MirrorOff' ? 'Normal' : 'Warning';
    const subject = { kind: 'Node', name: node } as const;
    await reportEvent(kubernetes, { subject, type, reason: state, message, reporter }, log);
    await pauseUnlessStopped(restMs, this.#stop.signal, { ref: false });
  }
}

/** What a report makes of its node. */
export function eventReason({
  mirror,
  proof,
  upstreams,
}: Pick<NodeReport, 'mirror' | 'proof' | 'upstreams'>): NodeEventReason {
  if (mirror === 'off') return 'MirrorOff';
  if (proof === 'bypassed') return 'MirrorBypassed';
  const states = [...upstreams.values()];
  if (states.includes('withdrawn') && states.every((state) => UNHARMED.has(state))) return 'MirrorWithdrawn';
  return mirror === 'configured' ? 'MirrorConfigured' : 'MirrorFallback';
}

/** `undefined` when no agent was there before. */
function stateOfNode({ metadata }: ObjectOf<'nodes'>): NodeEventReason | undefined {
  const mirror = metadata?.labels?.[MIRROR_LABEL];
  if (mirror !== 'configured' && mirror !== 'fallback' && mirror !== 'off') return undefined;
  const { annotations = {} } = metadata ?? {};
  const proof = annotations[PROOF_ANNOTATION];
  const upstreams = parseUpstreams(annotations[UPSTREAMS_ANNOTATION]);
  return eventReason({ mirror, upstreams, ...(proof === undefined ? {} : { proof }) });
}

function messageOf(state: NodeEventReason, { reason }: NodeReport): string {
  if (state === 'MirrorConfigured') return 'pulls of every configured upstream go as the configuration says';
  if (state === 'MirrorOff') return 'the configuration says enabled: false, and pulls go as without weir';
  if (state === 'MirrorWithdrawn')
    return `pulls go to the upstreams until the mirror is well again${reason === undefined ? '' : `: ${reason}`}`;
  return reason ?? 'pulls go past the mirror';
}
