import { isIP } from 'node:net';
import type { SecureContext } from 'node:tls';
import { codeOf, messageOf } from '../process/file-problem.ts';

/** How replicas are known by their certificates. */
export interface ReplicaTrust {
  /** With the authorities of now. */
  readonly context: SecureContext;
  /** The one that certificates are for, whatever the replica's address is; without it, that is its address. */
  readonly serverName?: string;
}

/** The name that a replica's certificate is to have. */
export function nameOf(host: string, { serverName }: ReplicaTrust): string {
  return serverName ?? host;
}

/** Which certificate is wanted (RFC 6066, section 3): an address is no name to ask by. */
export function askedName(name: string): { readonly servername?: string } {
  return isIP(name) === 0 ? { servername: name } : {};
}

/** Why no TLS came about, as a person needs it; any other failure as it is. */
export function tlsProblem(error: unknown, name: string): unknown {
  const reason = REASONS.find(([codes]) => codes.test(codeOf(error) ?? ''))?.[1](name);
  return reason === undefined ? error : new Error(`${reason} (${saidBy(error)})`, { cause: error });
}

/** Node goes on about its own command line, and OpenSSL about its own sources and threads. */
function saidBy(error: unknown): string {
  if (error instanceof Error && 'reason' in error && codeOf(error)?.startsWith('ERR_SSL_'))
    return String(error.reason);
  return messageOf(error).replace(/; if the root CA is installed locally.*$/s, '');
}

const REASONS: readonly (readonly [codes: RegExp, reason: (name: string) => string])[] = [
  [/^CERT_HAS_EXPIRED$/, () => 'its certificate has expired'],
  [/^CERT_NOT_YET_VALID$/, () => 'its certificate is not valid yet'],
  [/^ERR_TLS_CERT_ALTNAME_/, (name) => `its certificate is not for ${name}`],
  [
    /^UNABLE_TO_(?:GET|VERIFY)_\w+$/,
    () =>
      'its certificate is of an authority that is not in --registry-ca, or comes without those of the authorities in between',
  ],
  [
    /^(?:SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|CERT_SIGNATURE_FAILURE|CERT_UNTRUSTED)$/,
    () => 'its certificate is of an authority that is not in --registry-ca',
  ],
  [/^(?:ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_PACKET_LENGTH_TOO_LONG)$/, () => 'it does not speak TLS'],
  [/^ERR_SSL_/, () => 'there is no TLS with it'],
];
