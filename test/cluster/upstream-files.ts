// The directory of the upstreams' process: what it is started with, what it holds and what it wrote.

import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Authority } from './authority.ts';
import { type PodImage, readLayout } from './image.ts';
import { REGISTRIES, registryNamed } from './layout.ts';
import { UpstreamStore } from './upstream-store.ts';

/** The directory, of a cluster that has its own in `cluster`. */
export function upstreamDirectory(cluster: string): string {
  return join(cluster, 'upstream');
}

export function requestLog(cluster: string): string {
  return join(upstreamDirectory(cluster), 'requests.jsonl');
}

/** Makes the directory, with a certificate for every name in it. */
export async function makeUpstream(cluster: string, authority: Authority): Promise<void> {
  const directory = upstreamDirectory(cluster);
  await mkdir(directory, { recursive: true });
  const names = REGISTRIES.flatMap(({ hosts, address }) => [
    ...hosts.map((host) => `DNS:${host}`),
    `IP:${address}`,
  ]);
  const { cert, key } = await authority.issue('upstream', '/CN=upstream', names);
  await copyFile(cert, join(directory, 'tls.crt'));
  await copyFile(key, join(directory, 'tls.key'));
}

/** Puts an image, or the one in an OCI layout, under a whole name; the digest that its tag then means. */
export async function push(cluster: string, reference: string, image: PodImage | string): Promise<string> {
  const [, host = '', repository = '', tag = ''] = /^([^/]+)\/(.+):([^:/]+)$/.exec(reference) ?? [];
  if (tag === '') throw new Error(`${reference} is not a whole name such as docker.io/library/web:1`);
  const { manifest, manifests, blobs } = typeof image === 'string' ? await readLayout(image) : image;
  const { name } = registryNamed(host);
  const store = new UpstreamStore(join(upstreamDirectory(cluster), 'registries', name));
  for (const blob of blobs) await store.putBlob(repository, blob.digest, blob.bytes);
  for (const one of [...manifests, manifest]) await store.putManifest(repository, one.digest, one.bytes);
  await store.tag(repository, tag, manifest.digest);
  return manifest.digest;
}
