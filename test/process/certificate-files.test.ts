import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { Authorities } from '../../process/authorities.ts';
import { readIdentity } from '../../process/certificate-files.ts';
import { certificatesIn, type Identity } from '../../process/certificates.ts';
import { watchFiles } from '../../process/watched-files.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { until } from '../agent/scripted-replica.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

const PERIOD = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
const authority = makeAuthority('test', PERIOD);
const newIdentity = (): Identity => issue(authority, ['weir.weir.svc'], PERIOD);

const rsaKey = (): string => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
};

suite('the files of a certificate', { concurrency: true }, () => {
  const { cert, key } = newIdentity();
  const broken: Readonly<Record<string, readonly [files: Record<string, string>, message: RegExp]>> = {
    'no certificate': [{ 'tls.key': key }, /cannot read .*\/tls\.crt: .*ENOENT/],
    'no key': [{ 'tls.crt': cert }, /cannot read .*\/tls\.key: .*ENOENT/],
    'the key of another one': [
      { 'tls.crt': cert, 'tls.key': newIdentity().key },
      /tls\.crt and tls\.key in .* do not belong together: put the key there/,
    ],
    'a key of another kind': [
      { 'tls.crt': cert, 'tls.key': rsaKey() },
      /tls\.crt and tls\.key in .* do not belong together: put the key there/,
    ],
    'the certificates of a chain in the wrong order': [
      { 'tls.crt': authority.cert + cert, 'tls.key': key },
      /do not belong together: .* the certificate before those of its authorities/,
    ],
    'a certificate that is none': [
      { 'tls.crt': 'nonsense', 'tls.key': key },
      /tls\.crt and tls\.key in .* are no certificate and its key in PEM \(.*\): put both there/,
    ],
    'a key that is none': [{ 'tls.crt': cert, 'tls.key': '' }, /are no certificate and its key in PEM/],
  };
  for (const [what, [files, message]] of Object.entries(broken))
    test(`are refused with a sentence: ${what}`, async (t) => {
      await assert.rejects(readIdentity(await directoryWith(t, files)), message);
    });

  test('are read again when a kubelet exchanges them, and what cannot be used changes nothing', async (t) => {
    const volume = await directoryWith(t, {});
    const first = newIdentity();
    await exchange(volume, 'first', first);
    const seen: Identity[] = [];
    const problems: string[] = [];
    const log = pino({ level: 'error' }, { write: (line: string) => void problems.push(line) });
    const read = () => readIdentity(volume);
    const watch = watchFiles({ read, changed: (now) => seen.push(now), log, kept: 'it stays', everyMs: 5 });
    t.after(() => watch.close());
    await until(() => seen.length === 1);
    await exchange(volume, 'second', { cert: first.cert, key: newIdentity().key });
    await until(() => problems.length === 1);
    const third = newIdentity();
    await exchange(volume, 'third', third);
    await until(() => seen.length === 2);
    assert.deepEqual(seen, [first, third]);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /it stays/);
  });
});

suite('the file of authorities', { concurrency: true }, () => {
  test('holds at least one certificate, or is refused with a sentence', async (t) => {
    const directory = await directoryWith(t, { 'ca.crt': 'nonsense' });
    const log = pino({ level: 'silent' });
    await assert.rejects(
      Authorities.open(join(directory, 'ca.crt'), log),
      /\/ca\.crt holds no certificate in PEM: put the certificate of the authority there/,
    );
    await assert.rejects(
      Authorities.open(join(directory, 'none'), log),
      /\/none is not there: put the certificate of the authority there .* ca\.crt of what registry\.tls names/,
    );
    await assert.rejects(Authorities.open(directory, log), /cannot read .*EISDIR/);
    await writeFile(join(directory, 'ca.crt'), '');
    await assert.rejects(
      Authorities.open(join(directory, 'ca.crt'), log),
      /holds no certificate/,
      'an empty file is not to mean that everybody is trusted',
    );
  });

  test('is read again, and those before are trusted until they expire', async (t) => {
    const soon = makeAuthority('soon', { ...PERIOD, to: new Date(Date.now() - 1_000) });
    const directory = await directoryWith(t, { 'ca.crt': authority.cert + soon.cert });
    const file = join(directory, 'ca.crt');
    const authorities = await Authorities.open(file, pino({ level: 'silent' }), 5);
    t.after(() => authorities.close());
    const { context } = authorities;
    const next = makeAuthority('next', PERIOD);
    await writeFile(file, next.cert);
    await until(() => authorities.context !== context);
    assert.deepEqual(certificatesIn(authorities.pem), [next.cert, authority.cert]);
  });
});

async function directoryWith(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const directory = await makeScratch();
  t.after(() => removeScratch(directory));
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

/** As a kubelet does it: another directory, to which the links of the volume lead in one step. */
async function exchange(volume: string, name: string, { cert, key }: Identity): Promise<void> {
  await mkdir(join(volume, name));
  await writeFile(join(volume, name, 'tls.crt'), cert);
  await writeFile(join(volume, name, 'tls.key'), key);
  await symlink(name, join(volume, '..data.next'));
  await rename(join(volume, '..data.next'), join(volume, '..data'));
  for (const file of ['tls.crt', 'tls.key'])
    if (!existsSync(join(volume, file))) await symlink(join('..data', file), join(volume, file));
}
