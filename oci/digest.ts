import { createHash, type Hash } from 'node:crypto';

/**
 * A content digest that was checked against the grammar: `sha256:` and 64, or `sha512:` and 128 lower-case
 * hexadecimal digits (OCI image specification, descriptor.md, "Registered algorithms").
 */
export type Digest = `${Algorithm}:${string}`;
export type Algorithm = 'sha256' | 'sha512';

const HEX_LENGTH: Readonly<Record<Algorithm, number>> = { sha256: 64, sha512: 128 };

/** Reads a digest; `undefined` when the text is none, or of an algorithm that is not registered. */
export function parseDigest(text: string): Digest | undefined {
  const [algorithm, hex, ...rest] = text.split(':');
  if ((algorithm !== 'sha256' && algorithm !== 'sha512') || hex === undefined || rest.length > 0)
    return undefined;
  if (hex.length !== HEX_LENGTH[algorithm] || !/^[0-9a-f]+$/.test(hex)) return undefined;
  return `${algorithm}:${hex}`;
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

export function hasherFor(algorithm: Algorithm): Hash {
  return createHash(algorithm);
}

/** The digest of bytes that are at hand, by default with the algorithm that every registry uses. */
export function digestOf(bytes: Uint8Array | string, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}
