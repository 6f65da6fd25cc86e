import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { suite, test } from 'node:test';
import { certificatesIn, expiryOf, overlapping } from '../../process/certificates.ts';
import { type Keyring, readKeyring, renewed, secretData, trusted } from '../../webhook/keyring.ts';
import { makeAuthority } from '../../webhook/x509.ts';

const NAMES = ['weir-webhook.weir.svc', 'weir-webhook.weir.svc.cluster.local'] as const;
const START = new Date('2030-01-01T12:00:00Z');
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const at = (milliseconds: number): Date => new Date(START.getTime() + milliseconds);
const next = (keyring: Keyring | undefined, milliseconds: number): Keyring =>
  renewed(keyring, [...NAMES], at(milliseconds));

/** Whether somebody who trusts these authorities at that time can check the certificate. */
function isTrusted(authorities: string, serving: string, now: Date): boolean {
  const leaf = new X509Certificate(serving);
  return certificatesIn(authorities).some((pem) => {
    const authority = new X509Certificate(pem);
    const isValid = [leaf, authority].every(
      ({ validFrom, validTo }) =>
        Date.parse(validFrom) <= now.getTime() && now.getTime() < Date.parse(validTo),
    );
    return isValid && authority.ca && leaf.checkIssued(authority) && leaf.verify(authority.publicKey);
  });
}

suite('the certificates of the webhook', () => {
  test('are for the names under which an API server comes', () => {
    const { serving } = next(undefined, 0);
    const certificate = new X509Certificate(serving.cert);
    for (const name of NAMES) assert.equal(certificate.checkHost(name), name);
    assert.equal(certificate.checkHost('weir-webhook.other.svc'), undefined);
  });

  test('stay as they are while nothing is due', () => {
    const first = next(undefined, 0);
    assert.equal(next(first, DAY_MS), first);
    assert.equal(next(first, 19 * DAY_MS), first);
  });

  test('are served anew long before they expire, by the same authority', () => {
    const first = next(undefined, 0);
    const second = next(first, 21 * DAY_MS);
    assert.notEqual(second.serving.cert, first.serving.cert);
    assert.equal(second.authority, first.authority);
    assert.ok(expiryOf(second.serving.cert) > expiryOf(first.serving.cert) + 20 * DAY_MS);
  });

  test('can be checked throughout two years, also by who heard of the authorities some hours ago', () => {
    let keyring = next(undefined, 0);
    let heard = trusted(keyring);
    const authorities = new Set<string>();
    for (let hour = 0; hour < 2 * 365 * 24; hour += 4) {
      const now = at(hour * HOUR_MS);
      const before = keyring;
      keyring = renewed(keyring, [...NAMES], now);
      if (before === keyring && hour % 96 !== 0) continue;
      authorities.add(keyring.authority.cert);
      assert.ok(isTrusted(heard, keyring.serving.cert, now), `at hour ${hour}, who heard before`);
      assert.ok(
        isTrusted(trusted(keyring), before.serving.cert, now),
        `at hour ${hour}, a replica that is late`,
      );
      assert.ok(certificatesIn(trusted(keyring)).length <= 3);
      heard = trusted(keyring);
    }
    assert.equal(authorities.size, 3, 'the authority was replaced');
  });

  test('are signed by a new authority only once everybody has heard of it', () => {
    const first = next(undefined, 0);
    const announced = next(first, 250 * DAY_MS);
    assert.deepEqual([announced.authority, certificatesIn(trusted(announced)).length], [first.authority, 2]);
    assert.ok(isTrusted(trusted(announced), announced.serving.cert, at(250 * DAY_MS)), 'and is not late');
    assert.equal(next(announced, 250 * DAY_MS + HOUR_MS / 2).next, announced.next);
    const replaced = next(announced, 250 * DAY_MS + HOUR_MS);
    assert.deepEqual([replaced.authority, replaced.former], [announced.next, [first.authority.cert]]);
    assert.ok(isTrusted(replaced.authority.cert, replaced.serving.cert, at(250 * DAY_MS + HOUR_MS)));
  });

  test('are read from the Secret as they were written', () => {
    const year = next(next(undefined, 0), 300 * DAY_MS);
    assert.notEqual(year.next, undefined);
    for (const keyring of [next(undefined, 0), year, next(year, 301 * DAY_MS)])
      assert.deepEqual(readKeyring(secretData(keyring)), keyring);
  });

  test('are made anew where the Secret has none that can be used', () => {
    const data = secretData(next(undefined, 0));
    const other = secretData(next(undefined, 0));
    for (const damage of [
      {},
      { ...data, 'tls.key': '' },
      { ...data, 'tls.key': other['tls.key'] ?? '' },
      { ...data, 'authority.crt': 'x' },
      { ...data, 'authority.key': other['authority.key'] ?? '' },
    ])
      assert.equal(readKeyring(damage), undefined);
    assert.notEqual(
      readKeyring({ ...data, 'former-authorities.crt': 'x', 'next-authority.crt': 'y' }),
      undefined,
    );
  });

  test('are made anew when they are too late, for other names, or of another authority', () => {
    const first = next(undefined, 0);
    const late = next(first, 400 * DAY_MS);
    assert.notEqual(late.authority.cert, first.authority.cert);
    assert.ok(isTrusted(trusted(late), late.serving.cert, at(400 * DAY_MS)));
    const renamed = renewed(first, ['other.weir.svc'], at(0));
    assert.equal(new X509Certificate(renamed.serving.cert).checkHost('other.weir.svc'), 'other.weir.svc');
    assert.equal(renamed.authority, first.authority);
    const mixed = { ...first, serving: next(undefined, 0).serving };
    assert.ok(isTrusted(trusted(first), next(mixed, 0).serving.cert, at(0)));
  });
});

suite("somebody else's authorities", () => {
  const authority = (from: number): string =>
    makeAuthority('other', { from: at(from), to: at(from + 90 * DAY_MS) }).cert;
  const [first, second] = [authority(0), authority(60 * DAY_MS)];

  test('are trusted after the next ones came, until they expire', () => {
    const both = overlapping(second, overlapping(first, '', at(0)), at(60 * DAY_MS));
    assert.equal(both, `${second.trimEnd()}\n${first}`);
    assert.equal(overlapping(second, both, at(61 * DAY_MS)), both, 'and no more often than once');
    assert.equal(overlapping(second, both, at(90 * DAY_MS)), `${second.trimEnd()}\n`);
  });

  test('are the only ones where the next are those of every system', () => {
    assert.equal(overlapping('', first, at(0)), '');
  });

  test('are not kept without end, however often they change', () => {
    let trust = '';
    for (let day = 0; day < 20; day++) trust = overlapping(authority(day * DAY_MS), trust, at(day * DAY_MS));
    assert.equal(certificatesIn(trust).length, 5);
  });
});
