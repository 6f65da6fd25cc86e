import { collectDefaultMetrics, Registry } from 'prom-client';

export { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Milliseconds between two looks at how late the event loop is; every 10, as is usual, takes 0.25 % of a processor. */
const LOOK_EVERY_MS = 100;

/** A registry of metrics for one program, with those of the Node process in it. */
export function createMetrics({ lookEveryMs = LOOK_EVERY_MS } = {}): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: lookEveryMs });
  return registry;
}
