// The one authority of a test cluster: everybody in it trusts it, and nobody else does.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../tools/command.ts';

const DAYS = '30';
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** An authority in a directory of its own; its certificate is `ca`. */
export class Authority {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async make(directory: string): Promise<Authority> {
    await mkdir(directory, { recursive: true });
    const authority = new Authority(directory);
    const subject = ['-subj', '/CN=test-cluster'];
    await authority.#openssl(
      'req',
      '-x509',
      ...NEW_KEY,
      '-days',
      DAYS,
      ...subject,
      '-keyout',
      'ca.key',
      '-out',
      'ca.crt',
    );
    return authority;
  }

  /** The path of the authority's own certificate. */
  get ca(): string {
    return join(this.#directory, 'ca.crt');
  }

  /** Paths of a new certificate; names as in `DNS:registry.example` or `IP:127.0.0.1`. */
  async issue(name: string, subject: string, names: readonly string[]): Promise<Certificate> {
    const extensions = ['extendedKeyUsage=serverAuth,clientAuth'];
    if (names.length > 0) extensions.push(`subjectAltName=${names.join(',')}`);
    await writeFile(join(this.#directory, `${name}.ext`), extensions.join('\n'));
    await this.#openssl('req', ...NEW_KEY, '-subj', subject, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    const authority = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'];
    const files = ['-in', `${name}.csr`, '-extfile', `${name}.ext`, '-out', `${name}.crt`];
    await this.#openssl('x509', '-req', ...authority, '-days', DAYS, ...files);
    return { cert: join(this.#directory, `${name}.crt`), key: join(this.#directory, `${name}.key`) };
  }

  #openssl(...args: string[]): Promise<string> {
    return run('openssl', args, { cwd: this.#directory });
  }
}
