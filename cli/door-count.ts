/** What an agent has counted since it started. */
export interface DoorCount {
  /** When that was, in seconds. */
  readonly startedAt: number;
  /** Requests by outcome; empty when the node asks the mirror without a door. */
  readonly outcomes: ReadonlyMap<string, number>;
}

/** Reads it from the agent's `/metrics`. */
export function readDoorCount(metrics: string): DoorCount {
  const outcomes = [...metrics.matchAll(OUTCOME)].map(
    ([, outcome = '', count]) => [outcome, Number(count)] as const,
  );
  return { startedAt: Number(STARTED.exec(metrics)?.[1] ?? 0), outcomes: new Map(outcomes) };
}

const OUTCOME = /^weir_door_requests_total\{outcome="(\w+)"\} (\S+)$/gm;
const STARTED = /^process_start_time_seconds (\S+)$/m;

/** What a pull tells of a node, from the counts before and after it. */
export function judge(
  before: DoorCount,
  after: DoorCount,
  image: string,
): { readonly isGood: boolean; readonly text: string } | 'restarted' {
  if (before.startedAt !== after.startedAt) return 'restarted';
  if (before.outcomes.size === 0)
    return { isGood: true, text: 'pulled; without a door, whether through the mirror is not known' };
  const risen = [...after.outcomes].flatMap(([outcome, count]) =>
    count > (before.outcomes.get(outcome) ?? 0) ? [outcome] : [],
  );
  if (risen.includes('forwarded')) return { isGood: true, text: 'pulled through the mirror' };
  if (risen.length > 0)
    return {
      isGood: false,
      text: `${image} was pulled, but not through the mirror: it said ${risen.join(', ')}`,
    };
  return {
    isGood: false,
    text: `${image} was pulled, but the runtime did not ask the mirror; is its config_path set?`,
  };
}
