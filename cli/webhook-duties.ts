import type { Logger } from 'pino';
import type { Config } from '../config/config.ts';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { Leader } from '../kubernetes/leader.ts';
import { registerWebhooks } from '../kubernetes/webhook-registration.ts';
import { Latest } from '../process/latest.ts';
import { Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { configWebhook, podsWanted, podWebhooks, type WebhookService } from '../webhook/registration.ts';
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
      failed: (error) => log.warn({ err: error }, 'the registration stays as it is, and is looked at again'),
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
    const { certificates, served, isNeeded, config, configMap, service, kubernetes, clusterRole, log } =
      this.#options;
    await certificates.maintain();
    const [known, needed] = [served(), isNeeded()];
    if (known === undefined || needed === undefined || !this.#leader.isLeading) return;
    const { authorities } = known;
    const mode = podsWanted(config(), needed);
    const place = { name: clusterRole, clusterRole };
    const pods = mode === undefined ? [] : podWebhooks(mode, { config: config(), service, authorities });
    const ofPods = await registerWebhooks(kubernetes, 'mutatingwebhookconfigurations', place, pods);
    if (ofPods !== 'kept') log.info({ mode: mode ?? 'none' }, `the webhook for Pods is ${ofPods}`);
    const ofConfig = await registerWebhooks(kubernetes, 'validatingwebhookconfigurations', place, [
      configWebhook(configMap, { service, authorities }),
    ]);
    if (ofConfig !== 'kept') log.info(`the webhook for the configuration is ${ofConfig}`);
  }
}
