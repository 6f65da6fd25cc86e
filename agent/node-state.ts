import type { Config } from '../config/config.ts';
import type { HostState } from './change.ts';
import type { Proof } from './proof.ts';
import { reasonCode } from './reason-code.ts';

/** How pulls of one upstream go on a node: as its file says, or, whatever that says, past the mirror. */
export type UpstreamState = HostState['kind'] | 'bypassed';

/** What is to be said of a node as a whole. */
export interface NodeState {
  /**
   * - `configured`: pulls of every configured upstream go as the configuration says;
   * - `fallback`: some do not, and the reason says which;
   * - `off`: the configuration says `enabled: false`.
   */
  readonly mirror: 'configured' | 'fallback' | 'off';
  readonly reason?: string;
  readonly upstreams: ReadonlyMap<string, UpstreamState>;
  /** Of those that are not as the configuration says: why, in a word that is the same in every version. */
  readonly reasons: ReadonlyMap<string, string>;
}

/** Sums up how each upstream stands, and whether the runtime was seen to obey. */
export function nodeState(
  config: Config,
  states: ReadonlyMap<string, HostState>,
  proof: Proof | undefined,
): NodeState {
  if (!config.enabled) return { mirror: 'off', upstreams: new Map(), reasons: new Map() };
  const problems = problemsOf(states);
  const reasons = reasonsOf(states, proof?.kind === 'bypassed');
  if (proof?.kind === 'bypassed') {
    const reason = [`the runtime does not ask the mirror: ${proof.reason}`, ...problems].join('; ');
    return { mirror: 'fallback', reason, upstreams: mapValues(states, bypassed), reasons };
  }
  const upstreams = mapValues(states, ({ kind }) => kind);
  if (problems.length > 0) return { mirror: 'fallback', reason: problems.join('; '), upstreams, reasons };
  const reason = proof?.kind === 'unproven' ? { reason: `unproven: ${proof.reason}` } : {};
  return { mirror: 'configured', ...reason, upstreams, reasons };
}

/** Of a node on which nothing is written: why, for every upstream. */
export function unconfigured(config: Config, reason: string): ReadonlyMap<string, HostState> {
  return mapValues(config.upstreams, () => ({ kind: 'unsupported', reason }));
}

function reasonsOf(states: ReadonlyMap<string, HostState>, isBypassed: boolean): ReadonlyMap<string, string> {
  return new Map(
    [...states].flatMap(([host, state]) => {
      const code = reasonCode(state, isBypassed);
      return code === undefined ? [] : [[host, code] as const];
    }),
  );
}

function bypassed({ kind }: HostState): UpstreamState {
  return kind === 'configured' ? 'bypassed' : kind;
}

/** One for each reason, since some hold for every host. */
function problemsOf(states: ReadonlyMap<string, HostState>): readonly string[] {
  const hosts = new Map<string, string[]>();
  for (const [host, state] of states) {
    if (state.kind === 'configured') continue;
    const problem = `${state.kind}: ${state.reason}`;
    hosts.set(problem, [...(hosts.get(problem) ?? []), host]);
  }
  const [only] = hosts;
  if (only !== undefined && hosts.size === 1 && only[1].length === states.size && states.size > 1)
    return [only[0]];
  return [...hosts].map(([problem, names]) => `${names.join(', ')}: ${problem}`);
}

function mapValues<Key, From, To>(
  map: ReadonlyMap<Key, From>,
  change: (value: From) => To,
): ReadonlyMap<Key, To> {
  return new Map([...map].map(([key, value]) => [key, change(value)]));
}
