import type { Logger } from 'pino';
import { readIdentity } from '../process/certificate-files.ts';
import { expiryOf, type Identity } from '../process/certificates.ts';
import { messageOf } from '../process/file-problem.ts';
import { UsageError } from '../process/lifecycle.ts';
import { Gauge, type Registry as Metrics } from '../process/metrics.ts';
import type { ServedCertificate } from '../process/server.ts';
import { watchFiles } from '../process/watched-files.ts';

interface Options {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly everyMs?: number;
}

/** The certificate that the registry answers with: `tls.crt` and `tls.key` of a directory, read again while it runs. */
export class RegistryCertificate implements ServedCertificate {
  #identity: Identity;
  readonly #renewed = new Set<() => void>();
  readonly #watch: { close(): void };

  private constructor(directory: string, identity: Identity, { metrics, log, everyMs }: Options) {
    this.#identity = identity;
    this.#watch = watchFiles({
      read: () => readIdentity(directory),
      known: identity,
      changed: (now) => {
        this.#identity = now;
        for (const renewed of this.#renewed) renewed();
        log.info({ until: this.#until() }, 'the registry answers with another certificate');
      },
      log,
      kept: 'the certificate before it stays in use',
      ...(everyMs === undefined ? {} : { everyMs }),
    });
    const expiry = (): number => expiryOf(this.#identity.cert);
    metrics.registerMetric(
      new Gauge({
        name: 'weir_registry_certificate_expiry_timestamp_seconds',
        help: 'When the certificate expires with which the registry answers.',
        registers: [],
        collect(): void {
          this.set(expiry() / 1000);
        },
      }),
    );
  }

  /** @throws UsageError that names the file and the remedy, when nothing can be served with what is there. */
  static async open(directory: string, options: Options): Promise<RegistryCertificate> {
    const identity = await readIdentity(directory).catch((error: unknown) => {
      throw new UsageError(`--cert-dir: ${messageOf(error)}`);
    });
    return new RegistryCertificate(directory, identity, options);
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** What is wrong with it; `undefined` while nothing is. */
  get problem(): string | undefined {
    if (expiryOf(this.#identity.cert) > Date.now()) return undefined;
    return `the certificate expired at ${this.#until()}, and no client takes it: renew tls.crt and tls.key`;
  }

  subscribe(renewed: () => void): () => void {
    this.#renewed.add(renewed);
    return () => this.#renewed.delete(renewed);
  }

  close(): void {
    this.#watch.close();
  }

  #until(): string {
    return new Date(expiryOf(this.#identity.cert)).toISOString();
  }
}
