import type { Logger } from 'pino';
import { startAgent } from '../agent/agent.ts';
import type { HostState } from '../agent/change.ts';
import { type GateTimings, HealthGate } from '../agent/health-gate.ts';
import { unconfigured } from '../agent/node-state.ts';
import type { Proof } from '../agent/proof.ts';
import { Prover } from '../agent/prover.ts';
import type { RuntimeFiles } from '../agent/runtime-files.ts';
import type { Config } from '../config/config.ts';
import type { Registry as Metrics } from '../process/metrics.ts';
import type { Readiness } from '../process/status-routes.ts';
import { agentReadiness, measureStates } from './agent.ts';
import type { NodeRuntime } from './node-runtime.ts';
import type { ProgramConfig } from './program-config.ts';

/** How each upstream stands on the node, and whether its runtime was seen to obey. */
export type Tell = (states: ReadonlyMap<string, HostState>, proof?: Proof) => void;

/** Where nodes find our registry. */
interface Mirror {
  readonly url: string;
  /** PEM of the authority that signs its certificate. */
  readonly ca?: string;
}

/** What an agent does on its node, as long as that has the same runtime. */
export interface NodeWork {
  /** Tells again how things stand. */
  readonly tell: () => void;
  readonly readiness: () => Readiness;
  close(): Promise<void>;
}

/** Writes what the runtime reads, proves that it does, and withdraws while the mirror is ill. */
export function startNodeWork({
  files,
  runtime,
  mirror,
  root,
  config,
  metrics,
  log,
  tell,
}: {
  readonly files: RuntimeFiles;
  readonly runtime: NodeRuntime;
  /** As the files are to name it. */
  readonly mirror: Mirror;
  readonly root: string;
  readonly config: ProgramConfig;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly tell: Tell;
}): NodeWork {
  const named = { mirror: mirror.url, mirrorCa: mirror.ca };
  const gate = new HealthGate({ ...named, metrics, log, onChange: () => agent.look() });
  const { socket, certsDirs } = runtime;
  const prover = new Prover({ root, socket, certsDir: certsDirs.join(' and '), ...named, metrics, log });
  const judge = (): void => tell(agent.states(), prover.proof);
  const agent = startAgent({
    files,
    root,
    ...named,
    source: config,
    log,
    leave: (current) => new Map([...runtime.owned(current), ...withdrawn(current, gate.illness)]),
    onApplied: judge,
    onCanary: (state, isChanged) => prover.look(state, isChanged),
  });
  prover.subscribe(judge);
  measureStates(agent, metrics);
  return {
    tell: judge,
    readiness: () => agentReadiness(agent, config),
    async close() {
      await prover.close();
      await agent.close();
      await gate.close();
    },
  };
}

/**
 * On a node whose runtime is told nothing: says why, whatever the configuration is. The mirror is asked there too, since
 * images may be given its name.
 */
export function standBy({
  reason,
  mirror,
  config,
  metrics,
  log,
  tell,
  timings = {},
}: {
  readonly reason: () => string;
  /** As the node reaches it. */
  readonly mirror: Mirror;
  readonly config: Pick<ProgramConfig, 'current' | 'detail' | 'subscribe'>;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly tell: Tell;
  readonly timings?: Partial<GateTimings>;
}): NodeWork {
  const judge = (): void => {
    const { current } = config;
    const ill = withdrawn(current, gate.illness, reason());
    tell(new Map([...unconfigured(current, reason()), ...ill]));
  };
  const named = { mirror: mirror.url, mirrorCa: mirror.ca };
  const gate = new HealthGate({ ...named, metrics, log, onChange: judge, timings });
  const unsubscribe = config.subscribe(judge);
  judge();
  return {
    tell: judge,
    readiness: () => ({ ready: true, detail: [reason(), ...config.detail] }),
    async close() {
      unsubscribe();
      await gate.close();
    },
  };
}

/**
 * What may be asked directly is, while our registry is ill: not an upstream that nodes ask a mirror of its own for.
 *
 * @param besides what else keeps pulls of this node from the mirror.
 */
export function withdrawn(
  { upstreams }: Config,
  illness: string | undefined,
  besides?: string,
): ReadonlyMap<string, HostState> {
  if (illness === undefined) return new Map();
  const reason = [`the mirror is ill: ${illness}`, besides].filter((one) => one !== undefined).join('; ');
  const affected = [...upstreams].filter(([, { direct, via }]) => direct && via !== 'node');
  return new Map(affected.map(([host]) => [host, { kind: 'withdrawn', reason }]));
}
