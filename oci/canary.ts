import { type Digest, digestOf } from './digest.ts';
import { formatReference } from './reference.ts';

/**
 * The registry host that nobody has: `.internal` is reserved for private use, and no name of it is ever looked up
 * where a runtime reads its hosts.toml. Who gets an image from it asked our registry.
 */
export const CANARY_HOST = 'canary.weir.internal';

/** The one image of its repository. */
export const CANARY_TAG = 'proof';

/** Names the image: made anew for each proof, so that nothing that a runtime kept can answer for the mirror. */
export interface CanaryName {
  /** As Go and the OCI image specification name it (`amd64`). */
  readonly architecture: string;
  /** 32 hexadecimal digits. */
  readonly nonce: string;
}

export interface CanaryContent {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly bytes: Buffer;
}

/** A real image of one small layer, in the order in which a runtime asks for its parts. */
export interface Canary {
  readonly name: CanaryName;
  readonly repository: string;
  /** In full, with the tag. */
  readonly reference: string;
  readonly manifest: CanaryContent;
  readonly config: CanaryContent;
  readonly layer: CanaryContent;
}

/** The name that a repository stands for; `undefined` when it is none of a canary. */
export function parseCanary(repository: string): CanaryName | undefined {
  const [, architecture, nonce] = REPOSITORY.exec(repository) ?? [];
  return architecture === undefined || nonce === undefined ? undefined : { architecture, nonce };
}

/**
 * The image of a name, in every detail: each replica of each version of weir has to make the same bytes of it, since
 * the agent knows the digest that it must get. A manifest without an index, because runtimes take that for every
 * platform, and a layer without compression, because compressors change.
 */
export function canaryOf(name: CanaryName): Canary {
  const repository = `${name.architecture}/${name.nonce}`;
  const layer = contentOf('application/vnd.oci.image.layer.v1.tar', tarOf('nonce', `${name.nonce}\n`));
  const config = contentOf(
    'application/vnd.oci.image.config.v1+json',
    JSON.stringify({
      architecture: name.architecture,
      os: 'linux',
      config: { Labels: { 'dev.weir.canary': name.nonce } },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
  );
  const manifest = contentOf(
    MANIFEST_TYPE,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: descriptorOf(config),
      layers: [descriptorOf(layer)],
    }),
  );
  const reference = formatReference({ host: CANARY_HOST, repository, tag: CANARY_TAG });
  return { name, repository, reference, manifest, config, layer };
}

const REPOSITORY = /^([a-z0-9]{1,16})\/([0-9a-f]{32})$/;
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

function contentOf(mediaType: string, content: string | Buffer): CanaryContent {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  return { mediaType, digest: digestOf(bytes), bytes };
}

function descriptorOf({ mediaType, digest, bytes }: CanaryContent) {
  return { mediaType, digest, size: bytes.length };
}

/** A block of a tar archive, in bytes. */
const BLOCK = 512;

/** An archive of one file (POSIX.1-2017, pax, "ustar Interchange Format"). */
function tarOf(path: string, text: string): Buffer {
  const header = Buffer.alloc(BLOCK);
  header.write(path, 0);
  header.write('0000444', 100);
  header.write('0000000', 108);
  header.write('0000000', 116);
  header.write(Buffer.byteLength(text).toString(8).padStart(11, '0'), 124);
  header.write('00000000000', 136);
  header.write(' '.repeat(8), 148);
  header.write('0', 156);
  header.write('ustar\u000000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const body = Buffer.alloc(BLOCK);
  body.write(text);
  return Buffer.concat([header, body, Buffer.alloc(2 * BLOCK)]);
}
