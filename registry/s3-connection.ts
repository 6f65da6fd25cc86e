import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { resolve } from 'node:path';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { readCredentials, type S3Credentials } from './s3-credentials.ts';
import type { S3Location } from './s3-location.ts';

/** TCP and TLS to the server. */
const CONNECT_TIMEOUT_MS = 2_000;
/** Until an answer begins, where nothing large is sent. */
const ANSWER_TIMEOUT_MS = 5_000;
const MAX_SOCKETS = 1024;
const MAX_IDLE_SOCKETS = 128;

/** How the SDK's clients are to speak with the server. Written for those of `@aws-sdk/client-s3`. */
export interface S3Connection {
  readonly forcePathStyle: boolean;
  readonly region?: string;
  readonly endpoint?: string;
  readonly credentials?: () => Promise<S3Credentials>;
  readonly requestHandler: {
    readonly httpAgent: HttpAgent;
    readonly httpsAgent: HttpsAgent;
    readonly connectionTimeout: number;
    readonly requestTimeout: number;
    readonly throwOnRequestTimeout: true;
    readonly socketTimeout: 0;
  };
  readonly requestChecksumCalculation: 'WHEN_REQUIRED';
  readonly responseChecksumValidation: 'WHEN_REQUIRED';
  readonly expectContinueHeader: false;
}

/** @throws Error when the CA bundle cannot be read. */
export async function connectionTo(
  location: S3Location,
  caDirectory: string | undefined,
): Promise<S3Connection> {
  const { region, endpoint, pathStyle, credentials, ca } = location;
  const agent = {
    keepAlive: true,
    maxSockets: MAX_SOCKETS,
    maxFreeSockets: MAX_IDLE_SOCKETS,
    // Of several idle connections the one that was used last is the least likely to be closed meanwhile.
    scheduling: 'lifo',
  } as const;
  return {
    forcePathStyle: pathStyle,
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined ? {} : { credentials: () => readCredentials(credentials) }),
    requestHandler: {
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent({
        ...agent,
        ...(ca === undefined ? {} : { secureContext: await trust(ca, caDirectory) }),
      }),
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: ANSWER_TIMEOUT_MS,
      throwOnRequestTimeout: true,
      // It would also count while a slow client is what is waited for; see S3Blob.
      socketTimeout: 0,
    },
    // Not every server knows the checksums that the SDK would add. Whoever stores a blob has compared it with its
    // digest, and a request's body is signed with it.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Costs a round trip a part, and a pause of seconds where the server does not know it.
    expectContinueHeader: false,
  };
}

/** One for all connections, as each would otherwise read all certificates again and hold them. */
async function trust(ca: string, directory = '.'): Promise<SecureContext> {
  const path = resolve(directory, ca);
  try {
    return createSecureContext({ ca: [...getCACertificates('default'), await readFile(path, 'utf8')] });
  } catch (cause) {
    throw new Error(`cannot read the CA bundle of the store, ${path}; correct ca in --store`, { cause });
  }
}
