import type { Logger } from 'pino';
import type { Config } from '../config/config.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { Leader } from '../kubernetes/leader.ts';
import { type Done, type Registry, registerWebhooks } from '../kubernetes/webhook-registration.ts';
import { Latest } from '../process/latest.ts';
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
  /** Each goes on whatever becomes of the others. */
  readonly #duties: readonly Latest<undefined>[];
  readonly #timer: NodeJS.Timeout;

  constructor(options: Options) {
    this.#options = options;
    const { kubernetes, lease, identity, certificates, metrics, log } = options;
    this.#duties = [
      this.#duty(() => certificates.maintain(), 'the certificates stay as they are, and are looked at again'),
      this.#duty(
        () => this.#registerForPods(),
        'the registration for Pods stays as it is, and is looked at again',
      ),
      this.#duty(
        () => this.#registerForConfig(),
        'the registration for the configuration stays as it is, and is looked at again',
      ),
    ];
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
    for (const duty of this.#duties) duty.put(undefined);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#duties.map((duty) => duty.close()));
    await this.#leader.close();
  }

  #duty(fulfil: () => Promise<void>, left: string): Latest<undefined> {
    return new Latest({
      act: async () => {
        if (this.#leader.isLeading) await fulfil();
      },
      failed: (error) => this.#options.log.warn({ err: error }, left),
      restMs: REST_MS,
      retryMs: RETRY_MS,
    });
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
    const { kubernetes, clusterRole } = this.#options;
    return registerWebhooks(kubernetes, registry, { name: clusterRole, clusterRole }, wanted);
  }
}
