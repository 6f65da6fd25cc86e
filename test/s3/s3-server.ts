// A real S3 server for one test file, on loopback, with its data in a directory of its own.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { freePort } from '../containerd/port.ts';
import { provide } from '../tools/cache.ts';
import { type Child, start } from '../tools/child.ts';
import { type S3ServerName, s3ServerTool } from './s3-server-tools.ts';

export const ACCESS_KEY = 'weir-test';
export const SECRET_KEY = 'weir-test-secret';
export const BUCKET = 'images';

export interface S3Server {
  readonly name: S3ServerName;
  readonly endpoint: string;
  /** Speaks to the server past the store, as another tool would. */
  readonly client: S3Client;
  stop(): Promise<void>;
}

export interface S3ServerOptions {
  readonly scratch: string;
  /** PEM files; the server speaks TLS with them. Only versitygw. */
  readonly tls?: { readonly certificate: string; readonly key: string };
}

/** The server, with the bucket in it. */
export async function startS3Server(
  name: S3ServerName,
  { scratch, tls }: S3ServerOptions,
): Promise<S3Server> {
  const binary = join(await provide(s3ServerTool(name)), name);
  const address = `127.0.0.1:${await freePort()}`;
  const data = join(scratch, `${name}-${address}`);
  await mkdir(data, { recursive: true });
  const endpoint = `${tls === undefined ? 'http' : 'https'}://${address}`;
  const child = await start(binary, await argumentsOf(name, address, data, tls), {
    env: {
      PATH: process.env['PATH'],
      HOME: data,
      MINIO_ROOT_USER: ACCESS_KEY,
      MINIO_ROOT_PASSWORD: SECRET_KEY,
      MINIO_BROWSER: 'off',
      ROOT_ACCESS_KEY: ACCESS_KEY,
      ROOT_SECRET_KEY: SECRET_KEY,
    },
    ready: (running) =>
      name === 'minio' ? running.line(/^API: /) : running.line(/listening|localhost|127\.0\.0\.1/i),
  });
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  if (tls === undefined) await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  return { name, endpoint, client, stop: () => stop(child, client) };
}

async function argumentsOf(
  name: S3ServerName,
  address: string,
  data: string,
  tls: S3ServerOptions['tls'],
): Promise<string[]> {
  if (name === 'minio')
    return ['server', data, '--address', address, '--console-address', `127.0.0.1:${await freePort()}`];
  const secured = tls === undefined ? [] : ['--cert', tls.certificate, '--key', tls.key];
  return ['--port', address, '--keep-alive', '--region', 'us-east-1', ...secured, 'posix', data];
}

async function stop(child: Child, client: S3Client): Promise<void> {
  client.destroy();
  await child.stop('SIGKILL');
}
