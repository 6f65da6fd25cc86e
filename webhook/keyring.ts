import { X509Certificate } from 'node:crypto';
import { certificatesIn, expiryOf, type Identity, isExpired, isPair } from '../process/certificates.ts';
import { issue, makeAuthority, type Period } from './x509.ts';

/**
 * The certificates of the webhook, shared by its replicas. A new authority is trusted for a while before anything is
 * signed with it, and the one before it until it expires, so that at no moment somebody is served what they cannot check.
 */
export interface Keyring {
  /** Signs the serving certificate. */
  readonly authority: Identity;
  /** Takes its place soon, and is trusted already. */
  readonly next?: Identity;
  /** Certificates of authorities before it that have not expired. */
  readonly former: readonly string[];
  readonly serving: Identity;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const AUTHORITY_MS = 365 * DAY_MS;
const SERVING_MS = 30 * DAY_MS;
/** Clocks of API servers may be behind ours. */
const SKEW_MS = HOUR_MS;
/** By then every API server knows of the new authority. */
const OVERLAP_MS = HOUR_MS;

/**
 * The keyring as it is to be at this time: the very same when nothing is due. What cannot be used, or is for other names,
 * is made anew.
 */
export function renewed(
  keyring: Keyring | undefined,
  names: readonly [string, ...string[]],
  now: Date,
): Keyring {
  if (keyring === undefined || isExpired(keyring.authority.cert, now)) {
    const authority = newAuthority(now);
    return { authority, former: [], serving: newServing(authority, names, now) };
  }
  if (keyring.next !== undefined && now.getTime() - madeAt(keyring.next) >= OVERLAP_MS) {
    const { authority: before, next: authority } = keyring;
    const former = [before.cert, ...keyring.former].filter((cert) => !isExpired(cert, now));
    return { authority, former, serving: newServing(authority, names, now) };
  }
  if (keyring.next === undefined && isDue(keyring.authority, now))
    return renewed({ ...keyring, next: newAuthority(now) }, names, now);
  if (isDue(keyring.serving, now) || !serves(keyring, names))
    return { ...keyring, serving: newServing(keyring.authority, names, now) };
  return keyring;
}

/** Everything that an API server is to trust, as PEM. */
export function trusted({ authority, next, former }: Keyring): string {
  return [authority.cert, ...(next === undefined ? [] : [next.cert]), ...former].join('');
}

/** The keyring as a Secret holds it. */
export function secretData(keyring: Keyring): Record<string, string> {
  const { authority, next, former, serving } = keyring;
  return {
    'ca.crt': trusted(keyring),
    'authority.crt': authority.cert,
    'authority.key': authority.key,
    'next-authority.crt': next?.cert ?? '',
    'next-authority.key': next?.key ?? '',
    'former-authorities.crt': former.join(''),
    'tls.crt': serving.cert,
    'tls.key': serving.key,
  };
}

/** `undefined` when the data has none that can be used, whatever is wrong with it. */
export function readKeyring(data: Readonly<Record<string, string>>): Keyring | undefined {
  const authority = identityIn(data, 'authority');
  const serving = identityIn(data, 'tls');
  if (authority === undefined || serving === undefined) return undefined;
  const next = identityIn(data, 'next-authority');
  const former = certificatesIn(data['former-authorities.crt'] ?? '');
  return { authority, ...(next === undefined ? {} : { next }), former, serving };
}

function identityIn(data: Readonly<Record<string, string>>, name: string): Identity | undefined {
  const [cert, key] = [data[`${name}.crt`] ?? '', data[`${name}.key`] ?? ''];
  return isPair(cert, key) ? { cert, key } : undefined;
}

function newAuthority(now: Date): Identity {
  return makeAuthority(`weir-webhook-authority-${now.getTime()}`, period(now, AUTHORITY_MS));
}

function newServing(authority: Identity, names: readonly [string, ...string[]], now: Date): Identity {
  return issue(authority, names, period(now, SERVING_MS));
}

function period(now: Date, milliseconds: number): Period {
  return { from: new Date(now.getTime() - SKEW_MS), to: new Date(now.getTime() + milliseconds) };
}

function madeAt({ cert }: Identity): number {
  return Date.parse(new X509Certificate(cert).validFrom) + SKEW_MS;
}

/** Once less than a third of its time is left. */
function isDue(identity: Identity, now: Date): boolean {
  const [from, to] = [madeAt(identity), expiryOf(identity.cert)];
  return now.getTime() > to - (to - from) / 3;
}

function serves({ serving, authority }: Keyring, names: readonly string[]): boolean {
  const certificate = new X509Certificate(serving.cert);
  return (
    certificate.checkIssued(new X509Certificate(authority.cert)) &&
    names.every((name) => certificate.checkHost(name) !== undefined)
  );
}
