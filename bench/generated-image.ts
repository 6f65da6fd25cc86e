import { createHash, type Hash } from 'node:crypto';
import { type Digest, digestOf } from '../oci/digest.ts';

/** What a registry hands out, without its bytes being anywhere as a whole. */
export interface Content {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  /** Some of the bytes from this offset on: at least one, at most `limit`. They are shared; nobody writes to them. */
  slice(offset: number, limit: number): Buffer;
}

export interface GeneratedImage {
  readonly manifest: Content;
  readonly config: Content;
  readonly layers: readonly Content[];
}

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';
const BLOCK_BYTES = 4 * 1024 * 1024;
const TAIL_BYTES = 64;

/** An image of layers of these sizes, each of them unlike every one with another name. */
export function generateImage(name: string, sizes: readonly number[]): GeneratedImage {
  const layers = sizes.map((size, index) => generateBlob(`${name} ${index}`, size));
  const config = contentOf(CONFIG_TYPE, JSON.stringify({ architecture: 'amd64', os: 'linux', name }));
  const manifest = contentOf(
    MANIFEST_TYPE,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: descriptorOf(config),
      layers: layers.map(descriptorOf),
    }),
  );
  return { manifest, config, layers };
}

/** One block of noise again and again, and at the end a tail that makes the blob unlike any other. */
function generateBlob(name: string, size: number): Content {
  const end = size - TAIL_BYTES;
  if (end < 0) throw new Error(`a generated layer has at least ${TAIL_BYTES} bytes`);
  const tail = Buffer.alloc(TAIL_BYTES);
  createHash('sha512').update(name).digest().copy(tail);
  return {
    mediaType: LAYER_TYPE,
    digest: `sha256:${hashOfBlocks(end).copy().update(tail).digest('hex')}`,
    size,
    slice(offset, limit) {
      if (offset >= end) return tail.subarray(offset - end, Math.min(TAIL_BYTES, offset - end + limit));
      const start = offset % BLOCK_BYTES;
      return block.subarray(start, Math.min(BLOCK_BYTES, start + limit, start + end - offset));
    },
  };
}

/** Blobs of one size differ in their tail alone, so what comes before it is hashed once. */
function hashOfBlocks(length: number): Hash {
  let hash = hashes.get(length);
  if (hash !== undefined) return hash;
  hash = createHash('sha256');
  for (let offset = 0; offset < length; offset += BLOCK_BYTES)
    hash.update(block.subarray(0, Math.min(BLOCK_BYTES, length - offset)));
  hashes.set(length, hash);
  return hash;
}

function contentOf(mediaType: string, text: string): Content {
  const bytes = Buffer.from(text);
  return {
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
    slice: (offset, limit) => bytes.subarray(offset, offset + limit),
  };
}

function descriptorOf({ mediaType, digest, size }: Content) {
  return { mediaType, digest, size };
}

/** Noise that does not compress, and is the same in every run. */
function makeBlock(): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  let state = 1;
  for (let at = 0; at < BLOCK_BYTES; at += 4) {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, at);
  }
  return bytes;
}

const block = makeBlock();
const hashes = new Map<number, Hash>();
