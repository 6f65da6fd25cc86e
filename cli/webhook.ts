import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import type { Kubernetes } from '../kubernetes/api.ts';
import { connectKubernetes, type ObjectName } from '../kubernetes/client.ts';
import { readLastGood } from '../kubernetes/last-good.ts';
import { Authorities } from '../process/authorities.ts';
import { aborted } from '../process/lifecycle.ts';
import { createMetrics, type Registry as Metrics } from '../process/metrics.ts';
import type { Readiness } from '../process/status-routes.ts';
import { Admission } from '../webhook/admission.ts';
import { DecisionCounter } from '../webhook/decision-counter.ts';
import { KnownNames } from '../webhook/known-names.ts';
import { ManifestProbe } from '../webhook/manifest-probe.ts';
import { CONFIG_PATH, PODS_PATH } from '../webhook/registration.ts';
import { type RegistryPlace, tellAstray } from '../webhook/rewrite.ts';
import { serveWebhook, type WebhookServer } from '../webhook/server.ts';
import { ProgramConfig } from './program-config.ts';
import { serveStatus } from './status-server.ts';
import { PRODUCT } from './version.ts';
import {
  type CertificateSource,
  measureExpiry,
  openCertificateFiles,
  openSecretCertificates,
  type Served,
} from './webhook-certificates.ts';
import { WebhookCluster } from './webhook-cluster.ts';
import { checkConfigMap } from './webhook-config.ts';
import { WebhookDuties } from './webhook-duties.ts';
import { readWebhookFlags, type WebhookFlags, type WebhookSettings } from './webhook-flags.ts';

interface Running {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly stop: AbortSignal;
}

/** `weir webhook` */
export async function runWebhook(
  flags: WebhookFlags & { readonly log: Logger; readonly stop: AbortSignal },
): Promise<void> {
  const { log, stop } = flags;
  const settings = readWebhookFlags(flags);
  const { configMap, service } = settings;
  const kubernetes = connectKubernetes(PRODUCT);
  const metrics = createMetrics();
  let readiness = waitingFor('a configuration');

  await using cleanup = new AsyncDisposableStack();
  const source = { metrics, readiness: () => readiness() };
  const status = await serveStatus(source, settings.status, log, { said: 'the webhook tells how it is' });
  cleanup.defer(() => status.drain());
  const config = await openConfig(kubernetes, configMap, { metrics, log, stop });
  if (config === undefined) return;
  cleanup.defer(() => config.close());
  readiness = waitingFor('a certificate');

  const look = (): void => duties?.look();
  let duties: WebhookDuties | undefined;
  let server: WebhookServer | undefined;
  let served: Served | undefined;
  const cluster = new WebhookCluster({ ...settings, kubernetes, changed: look, metrics, log });
  cleanup.defer(() => cluster.close());
  const first = Promise.withResolvers<Served | undefined>();
  const certificates = openCertificates(kubernetes, settings, log, look, (renewed) => {
    served = renewed;
    server?.renew(renewed.identity);
    first.resolve(renewed);
    look();
  });
  cleanup.defer(() => certificates.close());
  measureExpiry(metrics, () => served);
  duties = new WebhookDuties({
    ...settings,
    kubernetes,
    identity: `${hostname()}-${randomBytes(4).toString('hex')}`,
    certificates,
    // Nobody is sent here before there is a listener.
    served: () => (server === undefined ? undefined : served),
    config: () => config.current,
    isNeeded: () => (cluster.isKnown ? cluster.isNeeded(config.current) : undefined),
    metrics,
    log,
  });
  cleanup.defer(() => duties?.close());
  config.subscribe(look);
  stop.addEventListener('abort', () => first.resolve(undefined), { once: true });
  const identity = stop.aborted ? undefined : (await first.promise)?.identity;
  if (identity === undefined) return;

  const registry = (): RegistryPlace => ({
    ...settings.registry,
    rewriteTo: config.current.rewriteTo ?? settings.registry.rewriteTo,
  });
  const names = new KnownNames();
  const problem = (): string | undefined => tellAstray(config.current, registry());
  const note = (): void => {
    names.note({ config: config.current, registry: registry() });
    const found = problem();
    if (found !== undefined) log.error(found);
  };
  note();
  config.subscribe(note);
  const { registryCa } = settings;
  const authorities = registryCa === undefined ? undefined : await Authorities.open(registryCa, log);
  cleanup.defer(() => authorities?.close());
  const probe = new ManifestProbe({
    product: PRODUCT,
    authorities: (origin) => (origin === settings.registry.url ? authorities?.pem : undefined),
    metrics,
  });
  cleanup.defer(() => probe.close());
  const counter = new DecisionCounter(metrics);
  const admission = new Admission({
    config: () => config.current,
    registry,
    names,
    ownNamespace: service.namespace,
    cluster,
    probe,
    counter,
    log,
  });
  server = await serveWebhook({
    address: settings.listen,
    identity,
    decisions: new Map([
      [PODS_PATH, (request) => counter.timed(request, () => admission.answer(request))],
      [CONFIG_PATH, ({ object }) => Promise.resolve(checkConfigMap(object, settings.registry))],
    ]),
    log,
  });
  const running = server;
  // It may have been renewed while the listener was opened.
  if (served !== undefined) running.renew(served.identity);
  log.info({ address: running.address }, 'the webhook answers');
  look();
  readiness = () => ({
    ready: cluster.isKnown && !stop.aborted,
    detail: [
      ...(cluster.isKnown ? [] : ['waiting for the cluster to be known']),
      ...[problem()].filter((found) => found !== undefined),
      ...config.detail,
    ],
  });
  await aborted(stop);
  log.info('draining');
  await running.drain();
}

/** `undefined` when it was told to stop before there was a configuration. */
async function openConfig(
  kubernetes: Kubernetes,
  configMap: ObjectName,
  running: Running,
): Promise<ProgramConfig | undefined> {
  const otherLastGood = () => readLastGood(kubernetes, configMap);
  try {
    return await ProgramConfig.watch({ kubernetes, configMap, otherLastGood, ...running });
  } catch (error) {
    if (!running.stop.aborted) throw error;
    return undefined;
  }
}

function openCertificates(
  kubernetes: Kubernetes,
  { certDir, service, secret }: WebhookSettings,
  log: Logger,
  missed: () => void,
  changed: (served: Served) => void,
): CertificateSource {
  if (certDir !== undefined) return openCertificateFiles({ directory: certDir, changed, log });
  const host = `${service.name}.${service.namespace}.svc`;
  const names: [string, string] = [host, `${host}.cluster.local`];
  return openSecretCertificates({ kubernetes, secret, names, changed, missed, log });
}

function waitingFor(what: string): () => Readiness {
  return () => ({ ready: false, detail: [`waiting for ${what}`] });
}
