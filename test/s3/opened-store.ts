// Stores as the tests open them: with credentials from a directory, as a mounted Secret gives them.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import type { Digest } from '../../oci/digest.ts';
import { parseS3Location } from '../../registry/s3-location.ts';
import { S3Store } from '../../registry/s3-store.ts';
import type { AskedRange, ByteRange, Store } from '../../registry/store.ts';
import { ACCESS_KEY, BUCKET, SECRET_KEY } from './s3-server.ts';

export interface StoreSettings {
  readonly scratch: string;
  readonly endpoint: string;
  readonly bucket?: string;
  readonly prefix?: string;
  readonly accessKey?: string;
  readonly secretKey?: string;
  readonly ca?: string;
  /** `chain`: wherever the SDK finds them. */
  readonly credentials?: 'chain';
  readonly mustExist?: boolean;
  readonly signal?: AbortSignal;
}

export async function openS3Store(settings: StoreSettings): Promise<S3Store> {
  const { scratch, endpoint, bucket = BUCKET, prefix = '', ca } = settings;
  const { accessKey = ACCESS_KEY, secretKey = SECRET_KEY, signal = new AbortController().signal } = settings;
  const credentials = join(scratch, 'credentials', Buffer.from(accessKey + secretKey).toString('hex'));
  await mkdir(credentials, { recursive: true });
  await writeFile(join(credentials, 'AWS_ACCESS_KEY_ID'), `${accessKey}\n`);
  await writeFile(join(credentials, 'AWS_SECRET_ACCESS_KEY'), secretKey);
  const parameters = new URLSearchParams({
    endpoint,
    pathStyle: 'true',
    ...(settings.credentials === undefined && { credentials }),
    ...(ca && { ca }),
  });
  const location = parseS3Location(`s3://${bucket}/${prefix}?${parameters.toString()}`);
  return await S3Store.open(location, {
    log: pino({ level: 'silent' }),
    signal,
    ...(settings.mustExist === undefined ? {} : { mustExist: settings.mustExist }),
  });
}

/** The blob's bytes, or those of the range, opened with the range that was asked. */
export async function readBlob(
  store: Store,
  digest: Digest,
  { range, asked }: { range?: ByteRange; asked?: AskedRange } = {},
): Promise<Buffer | undefined> {
  const blob = await store.open(digest, asked);
  if (blob === undefined) return undefined;
  const chunks: Buffer[] = [];
  try {
    await blob.copyTo(
      async (chunk) => void chunks.push(Buffer.from(chunk)),
      range ?? { start: 0, end: blob.size - 1 },
      new AbortController().signal,
    );
  } finally {
    await blob.close();
  }
  return Buffer.concat(chunks);
}
