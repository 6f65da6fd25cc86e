import * as z from 'zod';
import type { S3Location } from './s3-location.ts';

/**
 * - `unreachable`: the server did not answer, or said that it cannot now; it may later;
 * - `refused`: it will answer the same until somebody changes the configuration or the bucket;
 * - `failed`: anything else.
 */
export type S3FailureKind = 'unreachable' | 'refused' | 'failed';

/** A request to S3 that failed. The message names operation, bucket, key and remedy. */
export class S3Failure extends Error {
  override readonly name = 'S3Failure';
  readonly kind: S3FailureKind;

  constructor(kind: S3FailureKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.kind = kind;
  }
}

/** What the SDK and Node throw, as far as it is read here. */
const thrownSchema = z.object({
  name: z.string(),
  message: z.string(),
  code: z.string().optional().catch(undefined),
  $metadata: z.object({ httpStatusCode: z.number().optional() }).optional().catch(undefined),
});

type Reason = readonly [kind: S3FailureKind, reason: string, remedy: string];

/** The SDK's class of an error whose code it does not know, as with an answer without a body. */
const NAMELESS = /^(?:UnknownError|Unknown|\d{3})$/;

/** @param doing such as `read`, in `cannot read s3://…` */
export function failureOf(doing: string, key: string, location: S3Location, error: unknown): S3Failure {
  if (error instanceof S3Failure) return error;
  const thrown = thrownSchema.safeParse(error).data;
  const [kind, reason, remedy] = reasonOf(thrown, location);
  const told = remedy === '' ? reason : `${reason}; ${remedy}`;
  return new S3Failure(kind, `cannot ${doing} s3://${location.bucket}/${key}: ${told}`, error);
}

/** Whether the error says that there is no such object. Of a HEAD, see {@link hidesReason}. */
export function isMissingKey(error: unknown): boolean {
  return thrownSchema.safeParse(error).data?.name === 'NoSuchKey';
}

export function statusOf(error: unknown): number | undefined {
  return thrownSchema.safeParse(error).data?.$metadata?.httpStatusCode;
}

/**
 * Whether the failure of a HEAD leaves open what it means: its answer has no body, so a missing object looks
 * like a missing bucket, and a wrong key like a wrong policy.
 */
export function hidesReason(error: unknown): boolean {
  const status = statusOf(error);
  return status !== undefined && status >= 300 && status < 500;
}

function reasonOf(thrown: z.infer<typeof thrownSchema> | undefined, location: S3Location): Reason {
  if (thrown === undefined) return ['failed', 'something that is no error was thrown', ''];
  const { name, message, code } = thrown;
  const status = thrown.$metadata?.httpStatusCode;
  const known = refusal(name, message, location) ?? network(name, code ?? '', message, location);
  if (known !== undefined) return known;
  const what = NAMELESS.test(name)
    ? `the server answered ${status ?? 'nothing readable'}`
    : `${name}: ${message}`;
  if (status !== undefined && (status >= 500 || status === 429) && status !== 501)
    return ['unreachable', what, 'the server is ill or overloaded; see its own log'];
  if (status === 403) return accessDenied(location);
  if (status === 301 || status === 307) return wrongRegion(location, message);
  return ['failed', what, ''];
}

function refusal(name: string, message: string, location: S3Location): Reason | undefined {
  switch (name) {
    case 'NoSuchBucket':
      return [
        'refused',
        'there is no such bucket',
        `create ${location.bucket}, or correct the bucket, region or endpoint in --store`,
      ];
    case 'InvalidBucketName':
      return ['refused', 'the server takes this for no bucket name', 'correct the bucket in --store'];
    case 'AccessDenied':
    case 'AllAccessDisabled':
    case 'Forbidden':
      return accessDenied(location);
    case 'InvalidAccessKeyId':
    // versitygw's word for it.
    case 'XAdminUserNotFound':
      return [
        'refused',
        'the server does not know the access key',
        `correct the credentials (${credentialsOf(location)})`,
      ];
    case 'SignatureDoesNotMatch':
      return [
        'refused',
        'the signature does not match',
        `correct the secret key (${credentialsOf(location)}); if it is right, a proxy on the way changes the request or its Host`,
      ];
    case 'ExpiredToken':
    case 'ExpiredTokenException':
    case 'InvalidToken':
    case 'TokenRefreshRequired':
      return ['refused', 'the session token is over', `renew the credentials (${credentialsOf(location)})`];
    case 'RequestTimeTooSkewed':
    case 'RequestExpired':
      return [
        'refused',
        'the clocks of this machine and of the server differ too much',
        'set both by NTP; a signature holds for 15 minutes',
      ];
    case 'PermanentRedirect':
    case 'TemporaryRedirect':
    case 'AuthorizationHeaderMalformed':
    case 'IllegalLocationConstraintException':
      return wrongRegion(location, message);
    case 'CredentialsProviderError':
    case 'S3CredentialsError':
      return [
        'refused',
        `there are no credentials (${message})`,
        'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a service account with a role, or credentials=DIR in --store',
      ];
    default:
      return message === 'Region is missing'
        ? ['refused', 'no region is known', 'add region=… to --store, or set AWS_REGION']
        : undefined;
  }
}

function network(name: string, code: string, message: string, location: S3Location): Reason | undefined {
  const server = location.endpoint ?? 'AWS';
  switch (code) {
    case 'ECONNREFUSED':
      return [
        'unreachable',
        `${server} refuses connections`,
        'start the server, or correct endpoint in --store',
      ];
    case 'ENOTFOUND':
    case 'EAI_AGAIN': {
      const style =
        location.endpoint !== undefined && !location.pathStyle
          ? ', or add pathStyle=true if the server has no host name for each bucket'
          : '';
      return [
        'unreachable',
        `the name of ${server} does not resolve`,
        `correct endpoint in --store, or the DNS${style}`,
      ];
    }
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return [
        'unreachable',
        `there is no route to ${server}`,
        'look at network policies and the endpoint in --store',
      ];
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ERR_STREAM_PREMATURE_CLOSE':
      return ['unreachable', `${server} broke the connection`, 'see its log, or that of a proxy on the way'];
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return ['refused', `${server} does not speak TLS`, 'write endpoint=http://… in --store'];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [
        'refused',
        `the certificate of ${server} is for another name`,
        'use a name that it holds as endpoint, or pathStyle=true',
      ];
    case 'CERT_HAS_EXPIRED':
      return ['refused', `the certificate of ${server} has expired`, 'renew it'];
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return [
        'refused',
        `the certificate of ${server} is not trusted (${message})`,
        'name its CA with ca=FILE in --store',
      ];
    default:
      return name === 'TimeoutError' || code === 'ETIMEDOUT'
        ? [
            'unreachable',
            `${server} did not answer in time`,
            'look at the server, network policies and the endpoint in --store',
          ]
        : undefined;
  }
}

function accessDenied({ bucket, prefix }: S3Location): Reason {
  return [
    'refused',
    'access is denied',
    // Without s3:ListBucket, AWS answers a missing object with AccessDenied.
    `allow s3:GetObject, s3:PutObject and s3:AbortMultipartUpload on ${bucket}/${prefix}*, and s3:ListBucket and s3:ListBucketMultipartUploads on ${bucket}`,
  ];
}

function wrongRegion({ region }: S3Location, message: string): Reason {
  return [
    'refused',
    `the bucket is in another region than ${region ?? 'the default'} (${message})`,
    'correct region in --store',
  ];
}

function credentialsOf({ credentials }: S3Location): string {
  return credentials ?? 'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role';
}
