import type { Logger } from 'pino';
import type { ConfigEvents } from '../config/intake.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import { connectKubernetes, type ObjectName } from '../kubernetes/client.ts';
import { keepLastGood, readLastGood } from '../kubernetes/last-good.ts';
import { type EventReport, reportEvent } from '../kubernetes/report-event.ts';
import { Latest } from '../process/latest.ts';
import { describe } from '../process/lifecycle.ts';
import type { Registry as Metrics } from '../process/metrics.ts';
import { parseAddress, type ServedCertificate } from '../process/server.ts';
import { parseObjectName } from './object-name.ts';
import { ProgramConfig } from './program-config.ts';
import { serveStatus } from './status-server.ts';
import { PRODUCT } from './version.ts';

interface Options {
  /** `NAMESPACE/NAME` */
  readonly configMap: string;
  /** Where a registry that waits for its configuration answers that it does. */
  readonly listen: string;
  readonly certificate?: ServedCertificate | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly stop: AbortSignal;
}

/** The registry's configuration in a ConfigMap; `undefined` when it was told to stop before there was one. */
export async function watchConfigMap(options: Options): Promise<ProgramConfig | undefined> {
  const { listen, certificate, metrics, log, stop } = options;
  const place = parseObjectName(options.configMap, '--config-map');
  const address = parseAddress(listen);
  const kubernetes = connectKubernetes(PRODUCT);
  // A Pod that waits for its configuration is alive and not ready.
  const waiting = await serveStatus(
    { metrics, readiness: () => ({ ready: false, detail: ['waiting for a configuration'] }) },
    address,
    log,
    { said: 'the registry waits for its configuration', certificate },
  );
  try {
    return await ProgramConfig.watch({
      kubernetes,
      configMap: place,
      otherLastGood: () => readLastGood(kubernetes, place),
      events: tellCluster(kubernetes, place, log),
      metrics,
      log,
      stop,
    });
  } catch (error) {
    if (!stop.aborted) throw error;
    return undefined;
  } finally {
    await waiting.drain();
  }
}

/** However often a configuration is edited, there are no more Events of it than one in so many milliseconds. */
const EVENT_REST_MS = 10_000;

/** Keeps what came into force for whoever starts amid a bad edit, and says under the ConfigMap what was refused. */
function tellCluster(kubernetes: Kubernetes, configMap: ObjectName, log: Logger): ConfigEvents {
  let isRefused = false;
  const reports = new Latest<EventReport>({
    act: (report) => reportEvent(kubernetes, report, log),
    failed: (error) => log.warn({ err: error }, 'an Event could not be made'),
    restMs: EVENT_REST_MS,
  });
  const report = (type: 'Normal' | 'Warning', reason: string, message: string): void =>
    reports.put({
      subject: { kind: 'ConfigMap', ...configMap },
      type,
      reason,
      message,
      reporter: 'weir-registry',
    });
  const lastGood = new Latest<string>({
    act: (text) => keepLastGood(kubernetes, configMap, text),
    failed: (error) =>
      log.warn({ err: error }, 'a replica that starts amid a bad edit would find no configuration'),
  });
  return {
    changed({ text, hash }) {
      lastGood.put(text);
      if (isRefused) report('Normal', 'ConfigAccepted', `configuration ${hash.slice(0, 12)} is in force`);
      isRefused = false;
    },
    refused(error) {
      isRefused = true;
      report('Warning', 'ConfigRefused', `${describe(error)}\nThe configuration before it stays in force.`);
    },
  };
}
