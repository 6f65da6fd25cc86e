import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { type Identity, isPair } from './certificates.ts';
import { codeOf, fileProblem, messageOf } from './file-problem.ts';

/**
 * `tls.crt` and `tls.key` of a directory, as a Secret of the type kubernetes.io/tls and cert-manager have them.
 *
 * @throws Error that names the file and the remedy, when nothing can be served with them.
 */
export async function readIdentity(directory: string): Promise<Identity> {
  const [cert = '', key = ''] = await Promise.all(
    ['tls.crt', 'tls.key'].map((name) => readPem(join(directory, name))),
  );
  const identity = { cert, key };
  try {
    // Which would be taken for one that was left out.
    if (cert === '' || key === '') throw new Error('one of them is empty');
    createSecureContext(identity);
  } catch (error) {
    throw new Error(problemOf(directory, error), { cause: error });
  }
  // OpenSSL takes the key of a certificate of another kind (RSA, ECDSA) for that of one that is yet to come.
  if (!isPair(cert, key)) throw new Error(mismatch(directory));
  return identity;
}

function mismatch(directory: string): string {
  return `tls.crt and tls.key in ${directory} do not belong together: put the key there that the certificate was made for, and the certificate before those of its authorities`;
}

function problemOf(directory: string, error: unknown): string {
  if (codeOf(error) === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH') return mismatch(directory);
  return `tls.crt and tls.key in ${directory} are no certificate and its key in PEM (${messageOf(error)}): put both there as they were issued, the key without a passphrase`;
}

async function readPem(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch((error: unknown) => {
    throw fileProblem('read', path, error);
  });
}
