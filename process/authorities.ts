import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { certificatesIn, overlapping } from './certificates.ts';
import { codeOf, fileProblem } from './file-problem.ts';
import type { Logger } from './log.ts';
import { watchFiles } from './watched-files.ts';

/**
 * The authorities in a PEM file, by which servers are known. The file is read again while the program runs, and
 * those that were in it before are trusted until they expire: servers do not all change their certificates at once.
 */
export class Authorities {
  #pem: string;
  #context: SecureContext;
  readonly #watch: { close(): void };

  private constructor(path: string, pem: string, log: Logger, everyMs?: number) {
    this.#pem = pem;
    this.#context = createSecureContext(trustIn(pem));
    this.#watch = watchFiles({
      read: () => readAuthorities(path),
      known: pem,
      changed: (now) => {
        this.#pem = overlapping(now, this.#pem, new Date());
        this.#context = createSecureContext(trustIn(this.#pem));
        log.info({ file: path }, 'the authorities by which the registry is known have changed');
      },
      log,
      kept: 'the authorities before it stay in use',
      ...(everyMs === undefined ? {} : { everyMs }),
    });
  }

  /** @throws Error that names the file and the remedy, when there is no certificate in it. */
  static async open(path: string, log: Logger, everyMs?: number): Promise<Authorities> {
    return new Authorities(path, await readAuthorities(path), log, everyMs);
  }

  get pem(): string {
    return this.#pem;
  }

  /** For new connections: made once, since reading certificates is most of the work for a client. */
  get context(): SecureContext {
    return this.#context;
  }

  close(): void {
    this.#watch.close();
  }
}

/**
 * How a client knows servers by these authorities, and by no others. An issuer that is itself signed by another is one of them:
 * cert-manager writes that into `ca.crt`, and whoever is written in Go takes it as well.
 */
export function trustIn(ca: string): SecureContextOptions {
  return { ca, minVersion: 'TLSv1.2', allowPartialTrustChain: true };
}

async function readAuthorities(path: string): Promise<string> {
  const pem = await readFile(path, 'utf8').catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') throw new Error(`${path} is not there: ${REMEDY}`, { cause: error });
    throw fileProblem('read', path, error);
  });
  const found = certificatesIn(pem);
  if (found.length === 0) throw new Error(`${path} holds no certificate in PEM: ${REMEDY}`);
  return found.join('');
}

const REMEDY =
  "put the certificate of the authority there that signs the registry's (with the chart, ca.crt of what registry.tls names)";
