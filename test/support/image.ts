import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { type Digest, digestOf } from '../../oci/digest.ts';

/** Content with the type and digest under which a registry keeps it. */
export interface Content {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly bytes: Buffer;
}

/** A real OCI image: what `docker pull` would fetch, in the order in which it would. */
export interface Image {
  readonly manifest: Content;
  readonly blobs: readonly Content[];
}

export const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** Makes an image of layers, each a set of files by path. */
export async function makeImage(
  layers: readonly Readonly<Record<string, string | Buffer>>[],
  architecture = 'amd64',
): Promise<Image> {
  const tars = await Promise.all(layers.map(makeTar));
  const blobs = tars.map((tar) => contentOf(LAYER_TYPE, gzipSync(tar, { level: 1 })));
  const config = contentOf(
    CONFIG_TYPE,
    JSON.stringify({
      architecture,
      os: 'linux',
      config: { Cmd: ['/hello'] },
      rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
    }),
  );
  const manifest = contentOf(
    MANIFEST_TYPE,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: descriptorOf(config),
      layers: blobs.map(descriptorOf),
    }),
  );
  return { manifest, blobs: [config, ...blobs] };
}

/** The index of one image for several platforms. */
export function makeIndex(images: Readonly<Record<string, Image>>): Content {
  const manifests = Object.entries(images).map(([architecture, { manifest }]) => ({
    ...descriptorOf(manifest),
    platform: { os: 'linux', architecture },
  }));
  return contentOf(INDEX_TYPE, JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests }));
}

export function contentOf(mediaType: string, content: string | Buffer): Content {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  return { mediaType, digest: digestOf(bytes), bytes };
}

/** Bytes that do not compress and are the same for the same seed. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0 || 1;
  for (let at = 0; at + 4 <= length; at += 4) {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, at);
  }
  return bytes;
}

function descriptorOf({ mediaType, digest, bytes }: Content) {
  return { mediaType, digest, size: bytes.length };
}

async function makeTar(files: Readonly<Record<string, string | Buffer>>): Promise<Buffer> {
  const tar = pack();
  for (const [name, content] of Object.entries(files))
    tar.entry(
      { name, mode: 0o755, mtime: new Date(0) },
      typeof content === 'string' ? Buffer.from(content) : content,
    );
  tar.finalize();
  return buffer(tar);
}
