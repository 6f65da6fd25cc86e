import { collectDefaultMetrics, Registry } from 'prom-client';

export { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** A registry of metrics for one program, with those of the Node process in it. */
export function createMetrics(): Registry {
  const registry = new Registry();
  // Every 10 ms, as it does by itself, is a quarter of a percent of a processor.
  // Looking every 10 ms, as it does by itself, takes a quarter of a percent of a processor.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  return registry;
}
