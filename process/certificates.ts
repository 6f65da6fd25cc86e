import { createPrivateKey, X509Certificate } from 'node:crypto';

/** A certificate and its private key, as PEM. */
export interface Identity {
  readonly cert: string;
  readonly key: string;
}

/** Of authorities before, however often they change. */
const MAX_FORMER = 4;

/** Whether the two belong together. */
export function isPair(cert: string, key: string): boolean {
  try {
    return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

/** The certificates in a PEM file, each by itself. */
export function certificatesIn(pem: string): string[] {
  const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return found.filter(isCertificate).map((one) => `${one}\n`);
}

/** The time at which a certificate (the first, where there are several) expires, in milliseconds since 1970. */
export function expiryOf(pem: string): number {
  return Date.parse(new X509Certificate(pem).validTo);
}

export function isExpired(cert: string, now: Date): boolean {
  return expiryOf(cert) <= now.getTime();
}

/**
 * Authorities that are somebody else's, and those before them until they expire: a certificate of an authority before
 * is served by some replica for as long as its kubelet takes to mount the next one.
 *
 * @param now as PEM; empty for those of every system, beside which no other can be trusted.
 */
export function overlapping(now: string, before: string, at: Date): string {
  if (now === '') return '';
  const current = new Set(certificatesIn(now));
  const former = certificatesIn(before).filter((cert) => !current.has(cert) && !isExpired(cert, at));
  return `${now.trimEnd()}\n${former.slice(0, MAX_FORMER).join('')}`;
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}
