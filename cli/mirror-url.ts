import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { checkedMirror } from '../agent/agent.ts';
import { fileProblem, messageOf } from '../process/file-problem.ts';
import { describe, UsageError } from '../process/lifecycle.ts';

/** A mirror that files name by its URL. */
export interface MirrorUrl {
  readonly url: string;
  /** PEM of the authority that signs its certificate. */
  readonly ca?: string;
}

/** @throws UsageError when there is an authority for a mirror that has no use for one. */
export function checkMirrorCa(mirror: string | undefined, caFile: string | undefined): void {
  // containerd tries a plain HTTP address over TLS first when there is a CA for it.
  if (caFile !== undefined && mirror?.startsWith('https://') !== true)
    throw new UsageError('--mirror-ca is for --mirror https://HOST');
}

/**
 * `--mirror URL` and `--mirror-ca FILE`.
 *
 * @throws UsageError
 */
export async function mirrorUrl(mirror: string, caFile: string | undefined): Promise<MirrorUrl> {
  checkMirrorCa(mirror, caFile);
  try {
    const url = checkedMirror(mirror);
    return caFile === undefined ? { url } : { url, ca: await readAuthority(caFile) };
  } catch (error) {
    throw new UsageError(describe(error));
  }
}

/** containerd fails every pull by a file whose `ca` holds no certificate. */
async function readAuthority(path: string): Promise<string> {
  const pem = await readFile(path, 'utf8').catch((error: unknown) => {
    throw fileProblem('read', path, error);
  });
  try {
    parseCertificate(pem);
    return pem;
  } catch (error) {
    throw new Error(`${path} holds no certificate in PEM: ${messageOf(error)}`, { cause: error });
  }
}

/** The first one of a bundle. @throws Error when it is none. */
function parseCertificate(pem: string): X509Certificate {
  return new X509Certificate(pem);
}
