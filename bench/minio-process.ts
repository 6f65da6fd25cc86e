import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import type { Digest } from '../oci/digest.ts';
import { freePort } from '../test/containerd/port.ts';
import { s3ServerTool } from '../test/s3/s3-server-tools.ts';
import { isMade, provide } from '../test/tools/cache.ts';
import { missingGo } from '../test/tools/go-module.ts';
import { type Child, startChild } from './child.ts';
import type { StoreContent } from './fault-row.ts';

const TOOL = s3ServerTool('minio');
const ACCESS_KEY = 'weir-bench';
const SECRET_KEY = 'weir-bench-secret';
const BUCKET = 'images';
/** What one scene stores is one page of a listing. */
const MAX_KEYS = 1_000;

/** Whether the server is built already, as by the tests. */
export function isMinioMade(): boolean {
  return isMade(TOOL);
}

/** Why it cannot be had on this machine; `undefined`: it can, perhaps after minutes of building. */
export async function missingMinio(): Promise<string | undefined> {
  return isMinioMade() ? undefined : await missingGo();
}

/** A MinIO of the benchmark's own with one bucket, in a directory that is gone with it. */
export class MinioProcess {
  readonly #child: Child;
  readonly #directory: string;
  readonly #client: S3Client;
  readonly endpoint: string;

  private constructor(child: Child, directory: string, endpoint: string) {
    this.#child = child;
    this.#directory = directory;
    this.endpoint = endpoint;
    this.#client = new S3Client({
      endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    });
  }

  static async start(): Promise<MinioProcess> {
    const binary = join(await provide(TOOL), 'minio');
    const directory = await mkdtemp(join(tmpdir(), 'weir-bench-minio-'));
    const [address, console] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const data = join(directory, 'data');
    await mkdir(data);
    const variables = [
      `HOME=${directory}`,
      `MINIO_ROOT_USER=${ACCESS_KEY}`,
      `MINIO_ROOT_PASSWORD=${SECRET_KEY}`,
      'MINIO_BROWSER=off',
    ];
    const serve = [binary, 'server', data, '--address', address, '--console-address', console];
    const child = await startChild('env', [...variables, ...serve], join(directory, 'minio.log'));
    const minio = new MinioProcess(child, directory, `http://${address}`);
    try {
      await child.match(/^(API: )/m);
      await minio.#client.send(new CreateBucketCommand({ Bucket: BUCKET }));
      await minio.#writeCredentials();
    } catch (error) {
      await minio.stop();
      throw error;
    }
    return minio;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** The prefix as `--store` takes it; by way of another endpoint, where one is given. */
  location(prefix: string, endpoint = this.endpoint): string {
    const credentials = join(this.#directory, 'credentials');
    const parameters = new URLSearchParams({ endpoint, pathStyle: 'true', credentials });
    return `s3://${BUCKET}/${prefix}?${parameters.toString()}`;
  }

  /** Reads what weir stored below the prefix, as it is in the bucket. */
  async inspect(prefix: string): Promise<StoreContent> {
    let [whole, damaged] = [0, 0];
    const blobs = `${prefix}/blobs/`;
    const page = await this.#client.send(
      new ListObjectsV2Command({ Bucket: BUCKET, Prefix: blobs, MaxKeys: MAX_KEYS }),
    );
    if (page.IsTruncated === true) throw new Error(`more than ${MAX_KEYS} objects below ${blobs}`);
    for (const { Key } of page.Contents ?? []) {
      const { Body } = await this.#client.send(new GetObjectCommand({ Bucket: BUCKET, Key }));
      const bytes = (await Body?.transformToByteArray()) ?? new Uint8Array();
      if (Key?.endsWith(createHash('sha256').update(bytes).digest('hex'))) whole += 1;
      else damaged += 1;
    }
    // MinIO lists uploads only without a prefix, or for one whole key.
    const { Uploads = [] } = await this.#client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }));
    const leftOver = Uploads.filter(({ Key }) => Key?.startsWith(blobs)).length;
    return { whole, damaged, leftOver, leftOverBytes: undefined };
  }

  async remove(prefix: string, digest: Digest): Promise<void> {
    await this.#client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: blobKey(prefix, digest) }));
  }

  /** Puts other bytes under the blob's key. */
  async overwrite(prefix: string, digest: Digest, bytes: Uint8Array): Promise<void> {
    const Key = blobKey(prefix, digest);
    await this.#client.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body: bytes }));
  }

  async stop(): Promise<void> {
    this.#client.destroy();
    await this.#child.stop('SIGKILL');
    await rm(this.#directory, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #writeCredentials(): Promise<void> {
    const directory = join(this.#directory, 'credentials');
    await mkdir(directory);
    await writeFile(join(directory, 'AWS_ACCESS_KEY_ID'), ACCESS_KEY);
    await writeFile(join(directory, 'AWS_SECRET_ACCESS_KEY'), SECRET_KEY);
  }
}

function blobKey(prefix: string, digest: Digest): string {
  const [algorithm = '', hex = ''] = digest.split(':');
  return `${prefix}/blobs/${algorithm}/${hex.slice(0, 2)}/${hex}`;
}
