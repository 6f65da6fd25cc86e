import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Kubernetes } from '../kubernetes/api.ts';
import type { ObjectName } from '../kubernetes/client.ts';
import { readSecret, watchSecret, writeSecret } from '../kubernetes/webhook-secret.ts';
import { readIdentity } from '../process/certificate-files.ts';
import { certificatesIn, expiryOf, type Identity, overlapping } from '../process/certificates.ts';
import { Gauge, type Registry as Metrics } from '../process/metrics.ts';
import { watchFiles } from '../process/watched-files.ts';
import { readKeyring, renewed, secretData, trusted } from '../webhook/keyring.ts';

/** What the webhook serves with, and by what an API server knows it. */
export interface Served {
  readonly identity: Identity;
  /** PEM; empty for authorities that every system knows. */
  readonly authorities: string;
}

/** Where certificates come from. */
export interface CertificateSource {
  /** Sees to it that there are some, and that they are renewed in time; for one replica at a time. */
  maintain(): Promise<void>;
  close(): void;
}

interface Options {
  readonly changed: (served: Served) => void;
  readonly log: Logger;
}

/** Our own, in a Secret that all replicas watch. */
export function openSecretCertificates(
  options: Options & {
    readonly kubernetes: Kubernetes;
    readonly secret: ObjectName;
    /** DNS names under which API servers come. */
    readonly names: readonly [string, ...string[]];
    /** What is in the Secret cannot be used. */
    readonly missed: () => void;
  },
): CertificateSource {
  const { kubernetes, secret, names, changed, missed, log } = options;
  const place = `Secret ${secret.namespace}/${secret.name}`;
  const watch = watchSecret({
    kubernetes,
    secret,
    changed: ({ data }) => {
      const keyring = readKeyring(data);
      // The one before is served until the replica that leads has made it anew.
      if (keyring === undefined) missed();
      else changed({ identity: keyring.serving, authorities: trusted(keyring) });
    },
    log,
  });
  return {
    async maintain() {
      const { data, version } = await readSecret(kubernetes, secret);
      const keyring = readKeyring(data);
      const wanted = renewed(keyring, names, new Date());
      if (wanted === keyring) return;
      if (await writeSecret(kubernetes, secret, secretData(wanted), version))
        log.info(`certificates were ${keyring === undefined ? 'made' : 'renewed'} in ${place}`);
    },
    close: () => watch.close(),
  };
}

/** Somebody else's, such as cert-manager's: `tls.crt`, `tls.key` and `ca.crt` in a directory. The authorities before are trusted on. */
export function openCertificateFiles(options: Options & { readonly directory: string }): CertificateSource {
  const { directory, changed, log } = options;
  let trust = '';
  const watch = watchFiles({
    read: () => readServed(directory),
    changed: ({ identity, authorities }) => {
      trust = overlapping(authorities, trust, new Date());
      changed({ identity, authorities: trust });
    },
    log,
    kept: 'the certificate before it stays in use',
  });
  return { maintain: () => Promise.resolve(), close: () => watch.close() };
}

/** Exports when what is served expires. */
export function measureExpiry(metrics: Metrics, current: () => Served | undefined): void {
  metrics.registerMetric(
    new Gauge({
      name: 'weir_webhook_certificate_expiry_timestamp_seconds',
      help: 'When the certificate expires with which the webhook answers, and its authority.',
      labelNames: ['certificate'],
      registers: [],
      collect(): void {
        const served = current();
        if (served === undefined) return;
        this.set({ certificate: 'serving' }, expiryOf(served.identity.cert) / 1000);
        const [authority] = certificatesIn(served.authorities);
        if (authority !== undefined) this.set({ certificate: 'authority' }, expiryOf(authority) / 1000);
      },
    }),
  );
}

/** @throws Error that names the files. */
async function readServed(directory: string): Promise<Served> {
  const identity = await readIdentity(directory);
  const authorities = await readFile(join(directory, 'ca.crt'), 'utf8').catch(() => '');
  return { identity, authorities };
}
