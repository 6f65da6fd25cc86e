import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A server's key and certificate, and the authority that signed it, which nobody trusts by themselves. */
export interface Identity {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

/** A server's certificate by an authority that is itself signed by another. */
export interface Chain {
  readonly root: string;
  readonly issuer: string;
  readonly key: string;
  readonly cert: string;
}

const run = promisify(execFile);

/** Makes an authority and a certificate for these names (`DNS:registry.example`, `IP:127.0.0.1`) with openssl. */
export async function makeIdentity(directory: string, names: readonly string[]): Promise<Identity> {
  const path = (name: string): string => join(directory, name);
  const openssl = (command: string) =>
    run('openssl', command.split(' '), { cwd: directory, timeout: 20_000 });
  const curve = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
  await writeFile(path('names.ext'), `subjectAltName=${names.join(',')}\n`);
  await openssl(`req -x509 ${curve} -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem`);
  await openssl(`req ${curve} -subj /CN=server -keyout server.key -out server.csr`);
  await openssl(
    'x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names.ext -out server.pem',
  );
  const [ca, key, cert] = await Promise.all(
    ['ca.pem', 'server.key', 'server.pem'].map((name) => readFile(path(name), 'utf8')),
  );
  if (ca === undefined || key === undefined || cert === undefined) throw new Error('openssl wrote nothing');
  return { ca, key, cert };
}

/** Makes such a chain for these names with openssl. */
export async function makeChain(directory: string, names: readonly string[]): Promise<Chain> {
  const server = await makeIdentity(directory, names);
  const openssl = (command: string) =>
    run('openssl', command.split(' '), { cwd: directory, timeout: 20_000 });
  await writeFile(join(directory, 'issuer.ext'), 'basicConstraints=critical,CA:TRUE\n');
  await openssl('req -new -key server.key -subj /CN=server -out again.csr');
  await openssl(
    'req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=issuer -keyout issuer.key -out issuer.csr',
  );
  await openssl(
    'x509 -req -in issuer.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile issuer.ext -out issuer.pem',
  );
  await openssl(
    'x509 -req -in again.csr -CA issuer.pem -CAkey issuer.key -CAcreateserial -days 2 -extfile names.ext -out again.pem',
  );
  const read = (name: string): Promise<string> => readFile(join(directory, name), 'utf8');
  return {
    root: server.ca,
    issuer: await read('issuer.pem'),
    key: server.key,
    cert: await read('again.pem'),
  };
}
