import type { Logger } from 'pino';
import type { Config } from '../config/config.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { Leader } from '../kubernetes/leader.ts';
import { type Done, type Registry, registerWebhooks } from '../kubernetes/webhook-registration.ts';
import { Latest } from '../process/latest.ts';
import { describe } from '../process/lifecycle.ts';
import { Gauge, type Registry as Metrics } from '../process/metrics.ts';
import {
  configWebhook,
  podsWanted,
  podWebhooks,
  type Webhook,
  type WebhookService,
} from '../webhook/registration.ts';
import type { CertificateSource, Served } from './webhook-certificates.ts';

interface Options {
  readonly kubernetes: Kubernetes;
  readonly lease: ObjectName;
  readonly identity: string;
  readonly configMap: ObjectName;
  readonly service: WebhookService;
  readonly clusterRole: string;
  readonly certificates: CertificateSource;
  readonly served: () => Served | undefined;
  readonly config: () => Config;
  /** Whether some node needs rewriting; `undefined` while that is not known. */
  readonly isNeeded: () => boolean | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** Certificates and registration are looked after at least so often. */
const EVERY_MS = 10_000;
/** Between two looks, however much changes. */
const REST_MS = 200;
const RETRY_MS = 1_000;

/** What one of the replicas does for all: it renews the certificates, and registers the webhook while it is needed. */
export class WebhookDuties {
  readonly #options: Options;
  readonly #leader: Leader;
  readonly #latest: Latest<undefined>;
  readonly #timer: NodeJS.Timeout;

  constructor(options: Options) {
    this.#options = options;
    const { kubernetes, lease, identity, metrics, log } = options;
    this.#latest = new Latest({
      act: () => this.#fulfil(),
      failed: (error) =>
        log.warn({ err: error }, 'certificates or registrations stay as they are, and are looked at again'),
      restMs: REST_MS,
      retryMs: RETRY_MS,
    });
    this.#leader = new Leader({
      kubernetes,
      lease,
      identity,
      changed: () => this.look(),
      log,
    });
    this.#timer = setInterval(() => this.look(), EVERY_MS);
    const isLeading = (): boolean => this.#leader.isLeading;
    metrics.registerMetric(
      new Gauge({
        name: 'weir_webhook_leader',
        help: '1 in the replica that registers the webhook and renews its certificates.',
        registers: [],
        collect(): void {
          this.set(isLeading() ? 1 : 0);
        },
      }),
    );
  }

  /** Something has changed that the registration goes by. */
  look(): void {
    this.#latest.put(undefined);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#latest.close();
    await this.#leader.close();
  }

  async #fulfil(): Promise<void> {
    if (!this.#leader.isLeading) return;
    await doEach([
      () => this.#options.certificates.maintain(),
      () => this.#registerForPods(),
      () => this.#registerForConfig(),
    ]);
  }

  async #registerForPods(): Promise<void> {
    const { served, isNeeded, config, service, log } = this.#options;
    const [known, needed] = [served(), isNeeded()];
    if (known === undefined || needed === undefined) return;
    const mode = podsWanted(config(), needed);
    const { authorities } = known;
    const wanted = mode === undefined ? [] : podWebhooks(mode, { config: config(), service, authorities });
    const done = await this.#register('mutatingwebhookconfigurations', wanted);
    if (done !== 'kept') log.info({ mode: mode ?? 'none' }, `the webhook for Pods is ${done}`);
  }

  async #registerForConfig(): Promise<void> {
    const { served, isNeeded, configMap, service, log } = this.#options;
    const known = served();
    if (known === undefined || isNeeded() === undefined) return;
    const wanted = [configWebhook(configMap, { service, authorities: known.authorities })];
    const done = await this.#register('validatingwebhookconfigurations', wanted);
    if (done !== 'kept') log.info(`the webhook for the configuration is ${done}`);
  }

  async #register(registry: Registry, wanted: readonly Webhook[]): Promise<Done> {
    if (!this.#leader.isLeading) return 'kept';
    const { kubernetes, clusterRole } = this.#options;
    return registerWebhooks(kubernetes, registry, { name: clusterRole, clusterRole }, wanted);
  }
}

/** One after the other, each whatever became of those before it. */
async function doEach(duties: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const duty of duties) {
    try {
      await duty();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, failures.map(describe).join('; '));
}
