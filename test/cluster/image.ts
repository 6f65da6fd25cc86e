// Images for the cluster's Pods, without a container engine: made from plain files, or read from an OCI layout.

import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { arch, tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import * as z from 'zod';
import { digestOf } from '../../oci/digest.ts';
import { type Content, contentOf } from '../support/image.ts';
import { provide } from '../tools/cache.ts';
import { run } from '../tools/command.ts';
import { goModule } from '../tools/go-module.ts';

/** An image, or several in an index: what a pull may ask for. */
export interface PodImage {
  /** What its tag means. */
  readonly manifest: Content;
  /** The manifests that an index names. */
  readonly manifests: readonly Content[];
  readonly blobs: readonly Content[];
}

export interface ImageContent {
  /** By path, without a slash at its start. All may be run. */
  readonly files: Readonly<Record<string, string | Buffer>>;
  readonly entrypoint: readonly string[];
  /** As `UID:GID`; root otherwise. */
  readonly user?: string;
}

const TYPES = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
} as const;
const descriptorSchema = z.looseObject({ mediaType: z.string(), digest: z.string() });
const configSchema = z.looseObject({
  config: z.looseObject({ Env: z.array(z.string()).optional() }),
  rootfs: z.looseObject({ diff_ids: z.array(z.string()) }),
});
const indexSchema = z.object({ manifests: z.array(descriptorSchema) });
const manifestSchema = z.object({ config: descriptorSchema, layers: z.array(descriptorSchema) });

export async function makeImage({ files, entrypoint, user }: ImageContent): Promise<PodImage> {
  const tar = pack();
  for (const [name, content] of Object.entries(files))
    tar.entry(
      { name, mode: 0o755, mtime: new Date(0) },
      typeof content === 'string' ? Buffer.from(content) : content,
    );
  tar.finalize();
  const bytes = await buffer(tar);
  const layer = contentOf(TYPES.layer, gzipSync(bytes, { level: 1 }));
  const config = contentOf(
    TYPES.config,
    JSON.stringify({
      architecture: arch() === 'x64' ? 'amd64' : arch(),
      os: 'linux',
      config: { Entrypoint: entrypoint, ...(user !== undefined && { User: user }) },
      rootfs: { type: 'layers', diff_ids: [digestOf(bytes)] },
    }),
  );
  const manifest = contentOf(
    TYPES.manifest,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: TYPES.manifest,
      config: descriptorOf(config),
      layers: [descriptorOf(layer)],
    }),
  );
  return { manifest, manifests: [], blobs: [config, layer] };
}

/**
 * An image that serves HTTP on port 8080, or with `pause` does nothing. No two names have a layer in common: each
 * is pulled as if nothing like it were there.
 */
export async function workloadImage(name: string, command: 'web' | 'pause' = 'web'): Promise<PodImage> {
  const program = await readFile(join(await provide(goModule('workload')), 'workload'));
  return makeImage({ files: { workload: program, name }, entrypoint: ['/workload', command] });
}

/** The same image, in which Node trusts a further authority (PEM), as none of the values of a chart can say it. */
export async function withAuthority({ manifest, blobs }: PodImage, pem: string): Promise<PodImage> {
  const added = await makeImage({ files: { 'authority.pem': pem }, entrypoint: [] });
  const [, layer] = added.blobs;
  const { config: configDescriptor, layers } = manifestSchema.parse(JSON.parse(manifest.bytes.toString()));
  const given = blobs.find(({ digest }) => digest === configDescriptor.digest);
  const addedConfig = configSchema.parse(JSON.parse(added.blobs[0]?.bytes.toString() ?? ''));
  if (given === undefined || layer === undefined) throw new Error('the image has no config of its own');
  const before = configSchema.parse(JSON.parse(given.bytes.toString()));
  const config = contentOf(
    configDescriptor.mediaType,
    JSON.stringify({
      ...before,
      config: {
        ...before.config,
        Env: [...(before.config.Env ?? []), 'NODE_EXTRA_CA_CERTS=/authority.pem'],
      },
      rootfs: {
        ...before.rootfs,
        diff_ids: [...before.rootfs.diff_ids, ...addedConfig.rootfs.diff_ids],
      },
    }),
  );
  const whole = z.looseObject({}).parse(JSON.parse(manifest.bytes.toString()));
  const parts = { config: descriptorOf(config), layers: [...layers, descriptorOf(layer)] };
  const kept = blobs.filter((blob) => blob !== given);
  return {
    manifest: contentOf(manifest.mediaType, JSON.stringify({ ...whole, ...parts })),
    manifests: [],
    blobs: [config, layer, ...kept],
  };
}

/** The one image or index of an OCI layout: a directory, or a tar archive of one. */
export async function readLayout(path: string): Promise<PodImage> {
  if ((await stat(path)).isDirectory()) return readLayoutDirectory(path);
  const directory = await mkdtemp(join(tmpdir(), 'oci-layout-'));
  try {
    await run('tar', ['-xf', path, '-C', directory]);
    return await readLayoutDirectory(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function readLayoutDirectory(directory: string): Promise<PodImage> {
  const read = async ({ mediaType, digest }: z.infer<typeof descriptorSchema>) =>
    contentOf(mediaType, await readFile(join(directory, 'blobs', ...digest.split(':'))));
  const index = indexSchema.parse(JSON.parse(await readFile(join(directory, 'index.json'), 'utf8')));
  const [top] = index.manifests;
  if (top === undefined || index.manifests.length !== 1)
    throw new Error(`${directory} has ${index.manifests.length} images, and one is wanted`);
  const manifest = await read(top);
  const parts = indexSchema.safeParse(JSON.parse(manifest.bytes.toString()));
  const manifests = parts.success ? await Promise.all(parts.data.manifests.map(read)) : [];
  const blobs = (parts.success ? manifests : [manifest]).flatMap(({ bytes }) => {
    const { config, layers } = manifestSchema.parse(JSON.parse(bytes.toString()));
    return [config, ...layers];
  });
  return { manifest, manifests, blobs: await Promise.all(blobs.map(read)) };
}

function descriptorOf({ mediaType, digest, bytes }: Content) {
  return { mediaType, digest, size: bytes.length };
}
