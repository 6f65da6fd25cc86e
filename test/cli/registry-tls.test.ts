import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { Door } from '../../agent/door.ts';
import { RegistryCertificate } from '../../cli/registry-certificate.ts';
import { Authorities } from '../../process/authorities.ts';
import type { Identity } from '../../process/certificates.ts';
import { createMetrics } from '../../process/metrics.ts';
import { parseAddress } from '../../process/server.ts';
import { issue, makeAuthority } from '../../webhook/x509.ts';
import { until } from '../agent/scripted-replica.ts';
import { getSecurely } from '../support/https.ts';
import { makeImage } from '../support/image.ts';
import { UpstreamRegistry } from '../support/upstream-registry.ts';
import { startWeir, weir } from '../support/weir-command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';

const NAME = 'weir.weir.svc';
const HOUR_MS = 3_600_000;
const PERIOD = { from: new Date(Date.now() - 2 * HOUR_MS), to: new Date(Date.now() + HOUR_MS) };
const authority = makeAuthority('test', PERIOD);
const trust = { ca: authority.cert, servername: NAME };
const log = pino({ level: 'silent' });

suite('weir registry --cert-dir', { concurrency: true }, () => {
  test('answers all it is asked over TLS, pulls through a door among it', async (t) => {
    const { directory, flags } = await prepared(t);
    const upstream = await UpstreamRegistry.start();
    t.after(() => upstream.stop());
    const image = await makeImage([{ hello: 'x'.repeat(300_000) }]);
    upstream.push('library/web', 'latest', image);
    await writeFile(
      join(directory, 'config.yaml'),
      `upstreams: { docker.io: { endpoint: "${upstream.url}" } }\n`,
    );
    const running = await startWeir('registry', ...flags);
    t.after(() => running.stop());
    assert.match(running.url, /^https:/);
    assert.equal((await getSecurely(`${running.url}/livez`, trust)).body, 'ok\n');
    assert.equal((await getSecurely(`${running.url}/readyz`, trust)).body, 'ok\n');
    const { body } = await getSecurely(`${running.url}/metrics`, trust);
    const expiry = Number(/^weir_registry_certificate_expiry_timestamp_seconds (\S+)$/m.exec(body)?.[1]);
    assert.ok(Math.abs(expiry * 1000 - PERIOD.to.getTime()) < 2_000, `${expiry}`);

    const authorities = await Authorities.open(join(directory, 'ca.crt'), log);
    const door = await Door.open({
      address: { host: '127.0.0.1', port: 0 },
      metrics: createMetrics(),
      log,
      trust: () => ({ context: authorities.context, serverName: NAME }),
    });
    t.after(async () => {
      authorities.close();
      await door.close();
    });
    door.setReplicas([parseAddress(new URL(running.url).host)]);
    const manifest = await fetch(`${door.url}/v2/library/web/manifests/latest?ns=docker.io`);
    assert.equal(manifest.headers.get('docker-content-digest'), image.manifest.digest);
    const layer = image.blobs[1];
    const path = `/v2/library/web/blobs/${layer?.digest}?ns=docker.io`;
    assert.ok(
      Buffer.from(await (await fetch(door.url + path)).arrayBuffer()).equals(layer?.bytes ?? Buffer.of()),
    );
    const part = await fetch(door.url + path, { headers: { range: 'bytes=10-19' } });
    assert.equal(part.status, 206);
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(layer?.bytes.subarray(10, 20) ?? Buffer.of()));
  });

  test('goes on with the certificate before where the next one cannot be used, and says when it expires', async (t) => {
    const { directory } = await prepared(t);
    const certificate = await RegistryCertificate.open(directory, {
      metrics: createMetrics(),
      log,
      everyMs: 5,
    });
    t.after(() => certificate.close());
    const { identity } = certificate;
    let renewals = 0;
    certificate.subscribe(() => {
      renewals += 1;
    });
    await writeFile(join(directory, 'tls.crt'), 'nonsense');
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(certificate.identity, identity);
    assert.equal(certificate.problem, undefined);
    const past = { from: PERIOD.from, to: new Date(Date.now() - HOUR_MS) };
    await writeIdentity(directory, issue(authority, [NAME], past));
    await until(() => renewals === 1);
    assert.match(certificate.problem ?? '', /^the certificate expired at .*: renew tls\.crt and tls\.key$/);
  });

  test('ends with 2 and a sentence that names file and remedy, where there is nothing to answer with', async (t) => {
    const { directory, flags } = await prepared(t);
    await writeFile(join(directory, 'tls.key'), issue(authority, [NAME], PERIOD).key);
    const { code, stderr } = await weir('registry', ...flags);
    assert.equal(code, 2);
    assert.equal(
      stderr,
      `weir: --cert-dir: tls.crt and tls.key in ${directory} do not belong together: put the key there that the certificate was made for, and the certificate before those of its authorities\n`,
    );
  });
});

async function prepared(t: TestContext) {
  const directory = await makeScratch();
  t.after(() => removeScratch(directory));
  await writeIdentity(directory, issue(authority, [NAME], PERIOD));
  await writeFile(join(directory, 'ca.crt'), authority.cert);
  await writeFile(join(directory, 'config.yaml'), 'upstreams: { docker.io: {} }\n');
  const config = ['--config', join(directory, 'config.yaml'), '--store', `file:${join(directory, 'store')}`];
  return { directory, flags: [...config, '--listen', '127.0.0.1:0', '--cert-dir', directory] };
}

async function writeIdentity(directory: string, { cert, key }: Identity): Promise<void> {
  await writeFile(join(directory, 'tls.key'), key);
  await writeFile(join(directory, 'tls.crt'), cert);
}
