// Images made from a seed: the same name is the same bytes on every machine, and no two names share a layer
// unless they are meant to.

import { createCipheriv, createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { constants, gzip } from 'node:zlib';
import { pack } from 'tar-stream';
import { describeContent, describeDirectory, describeLink } from './files.ts';

export type Layer = readonly Entry[];
export type Entry =
  | { kind: 'directory'; path: string }
  | { kind: 'file'; path: string; content: Buffer; mode?: number }
  | { kind: 'link'; path: string; target: string }
  /** Hides what an earlier layer has at this path (a whiteout). */
  | { kind: 'removed'; path: string };

export type Descriptor = { mediaType: string; digest: string; size: number };
export type Blob = Descriptor & { content: Buffer };
export type Image = {
  manifest: Blob;
  blobs: readonly Blob[];
  /** What containerd has to unpack, as `listFiles` tells it. */
  files: Map<string, string>;
};
export type Index = { manifest: Blob; images: readonly Image[] };
export type Format = 'oci' | 'docker';

const mediaTypes = {
  oci: {
    index: 'application/vnd.oci.image.index.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
  },
  docker: {
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  },
} as const;

const whiteout = '.wh.';
const defaultMode = 0o644;
const directoryMode = 0o755;

export async function makeImage(
  format: Format,
  architecture: string,
  layers: readonly Layer[],
): Promise<Image> {
  const types = mediaTypes[format];
  const tars = await Promise.all(layers.map(archive));
  const packed = await Promise.all(tars.map((tar) => compress(tar, { level: constants.Z_BEST_SPEED })));
  const config = blob(types.config, {
    architecture,
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: tars.map(digestOf) },
  });
  const layerBlobs = packed.map((content) => blobOf(types.layer, content));
  const manifest = blob(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(config),
    layers: layerBlobs.map(descriptor),
  });
  return { manifest, blobs: [config, ...layerBlobs], files: unpacked(layers) };
}

/** One image for several platforms: a list of their manifests. */
export function makeIndex(format: Format, images: ReadonlyMap<string, Image>): Index {
  const mediaType = mediaTypes[format].index;
  const manifests = [...images].map(([architecture, image]) => ({
    ...descriptor(image.manifest),
    platform: { os: 'linux', architecture },
  }));
  return {
    manifest: blob(mediaType, { schemaVersion: 2, mediaType, manifests }),
    images: [...images.values()],
  };
}

/** Bytes that do not compress, the same for the same seed. */
export function seeded(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

const compress = promisify<Buffer, { level: number }, Buffer>(gzip);

async function archive(layer: Layer): Promise<Buffer> {
  const tar = pack();
  const common = { mtime: new Date(0), uid: 0, gid: 0 };
  for (const entry of layer) {
    switch (entry.kind) {
      case 'directory':
        tar.entry({ ...common, name: `${entry.path}/`, type: 'directory', mode: directoryMode });
        break;
      case 'file':
        tar.entry({ ...common, name: entry.path, mode: entry.mode ?? defaultMode }, entry.content);
        break;
      case 'link':
        tar.entry({ ...common, name: entry.path, type: 'symlink', linkname: entry.target });
        break;
      case 'removed':
        tar.entry({ ...common, name: entry.path.replace(/[^/]+$/, `${whiteout}$&`) }, '');
        break;
    }
  }
  tar.finalize();
  return buffer(tar);
}

function unpacked(layers: readonly Layer[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of layers.flat()) {
    for (const path of files.keys()) {
      const hidden = path === entry.path || path.startsWith(`${entry.path}/`);
      if (hidden && entry.kind !== 'directory') files.delete(path);
    }
    if (entry.kind === 'directory') files.set(entry.path, describeDirectory(directoryMode));
    if (entry.kind === 'file')
      files.set(entry.path, describeContent(entry.content, entry.mode ?? defaultMode));
    if (entry.kind === 'link') files.set(entry.path, describeLink(entry.target));
  }
  return new Map([...files].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function blob(mediaType: string, document: unknown): Blob {
  return blobOf(mediaType, Buffer.from(JSON.stringify(document)));
}

function blobOf(mediaType: string, content: Buffer): Blob {
  return { mediaType, digest: digestOf(content), size: content.length, content };
}

function descriptor({ mediaType, digest, size }: Blob): Descriptor {
  return { mediaType, digest, size };
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
