import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { after, before, suite, test } from 'node:test';
import { pino } from 'pino';
import { connectKubernetes } from '../../../kubernetes/client.ts';
import { Leader } from '../../../kubernetes/leader.ts';
import { issue, makeAuthority } from '../../../webhook/x509.ts';
import { freePort } from '../../containerd/port.ts';
import { makeIdentity } from '../../support/certificates.ts';
import type { Child } from '../../tools/child.ts';
import { makeScratch, removeScratch } from '../../tools/scratch.ts';
import { DOOR, eventually, imageOf, NAME, NAMESPACE, Stage } from './stage.ts';

const IMAGE = 'app:1';
const REWRITTEN = `${DOOR}/docker.io/library/app:1`;

suite('the webhook in a cluster', () => {
  let stage: Stage;
  let webhook: Child;
  const registered = async (): Promise<string[] | undefined> => {
    const found = await stage.admission
      .readMutatingWebhookConfiguration({ name: NAME })
      .catch(() => undefined);
    return found?.webhooks?.map(({ name }) => name);
  };
  const rewrites = async (): Promise<boolean> => (await stage.imageOn('fallback', IMAGE)) === REWRITTEN;

  before(async () => {
    stage = await Stage.open();
    webhook = await stage.startWebhook();
  });
  after(async () => {
    await stage?.close();
  });

  test('is registered only while a node needs it, and goes with the release', async () => {
    await stage.makeNode('configured', { 'docker.io': 'configured' });
    const { admission } = stage;
    await eventually('edits are looked at', async () => {
      const { metadata } = await admission.readValidatingWebhookConfiguration({ name: NAME });
      assert.deepEqual(
        metadata?.ownerReferences?.map(({ kind, name }) => `${kind} ${name}`),
        [`ClusterRole ${NAME}`],
      );
      return true;
    });
    assert.equal(await registered(), undefined);
    await stage.makeNode('fallback', { 'docker.io': 'unsupported' });
    await eventually('it is registered', async () => (await registered())?.length === 2);
    const { metadata } = await admission.readMutatingWebhookConfiguration({ name: NAME });
    assert.deepEqual(
      metadata?.ownerReferences?.map(({ kind, name }) => `${kind} ${name}`),
      [`ClusterRole ${NAME}`],
    );
    await eventually('Pods are rewritten', rewrites);
    await stage.configure('enabled: false');
    await eventually('it is withdrawn', async () => (await registered()) === undefined);
    await stage.configure('fallback: never');
    await stage.configure('');
    await eventually('it is registered again', async () => (await registered())?.length === 2);
    await eventually('Pods are rewritten again', rewrites);
  });

  test('puts its registration right when somebody changes it', async () => {
    const { admission } = stage;
    const found = await admission.readMutatingWebhookConfiguration({ name: NAME });
    for (const one of found.webhooks ?? []) one.failurePolicy = 'Fail';
    await admission.replaceMutatingWebhookConfiguration({ name: NAME, body: found });
    await eventually('nothing can be stopped by it', async () => {
      const { webhooks = [] } = await admission.readMutatingWebhookConfiguration({ name: NAME });
      return webhooks.every(({ failurePolicy }) => failurePolicy === 'Ignore');
    });
  });

  test('rewrites every Pod when it is made, with "fallback: always"', async () => {
    await stage.configure('fallback: always');
    await eventually('bindings are not looked at', async () => (await registered())?.length === 1);
    await eventually('Pods are rewritten', async () => imageOf(await stage.makePod(IMAGE)) === REWRITTEN);
    const spec = { automountServiceAccountToken: false, containers: [{ name: 'app', image: 'missing:1' }] };
    assert.equal(imageOf(await stage.makePod('', { spec })), 'missing:1');
    await stage.configure('');
    await eventually('they are not any more', async () => imageOf(await stage.makePod(IMAGE)) === IMAGE);
    await eventually('Pods of the node are rewritten', rewrites);
  });

  test('refuses an edit that cannot be read, with the line, and lets in a doubtful one with a warning', async () => {
    await assert.rejects(
      stage.configure('enabld: true'),
      /config\.yaml:4:1: error: enabld: the key is not known/,
    );
    await assert.rejects(stage.configure(`proxies: { a.io: "http://${DOOR}" }`), /is weir itself/);
    await assert.rejects(
      stage.configure('rewriteTo: 127.0.0.1:9999'),
      /nodes have their door at .*, and not at 127\.0\.0\.1:9999/,
    );
    const patch = JSON.stringify({ data: { 'config.yaml': 'upstreams: {}\n' } });
    const doubtful = ['patch', 'configmap', 'weir', '--namespace', NAMESPACE, '--patch', patch];
    const flags = ['--dry-run=server', '--warnings-as-errors'];
    assert.match(await stage.api.kubectl(...doubtful, ...flags).catch(String), /no upstream is named/);
    await stage.api.kubectl(
      'create',
      'configmap',
      'other',
      '--namespace',
      NAMESPACE,
      '--from-literal=config.yaml=x',
    );
  });

  for (const mode of ['refuse', 'fail', 'hang'] as const)
    test(`lets Pods pass as they are while the registry is there to ${mode}`, async (t) => {
      t.after(() => {
        stage.front.mode = 'hand on';
      });
      stage.front.mode = mode;
      const asked = stage.front.asked;
      // None that is known already.
      const tag = `app@sha256:${mode.charCodeAt(0).toString(16).repeat(32)}`;
      assert.equal(await stage.imageOn('fallback', tag), tag);
      assert.ok(stage.front.asked > asked);
    });

  test('tells how it is', async () => {
    const [, url = ''] = /"url":"([^"]+)"/.exec(await webhook.line(/the webhook tells how it is/)) ?? [];
    const [ready, metrics] = await Promise.all(
      ['/readyz', '/metrics'].map(async (path) => (await fetch(new URL(path, url))).text()),
    );
    assert.equal(ready, 'ok\n');
    const { data } = await stage.core.readNamespacedSecret({ namespace: NAMESPACE, name: NAME });
    const { validTo } = new X509Certificate(Buffer.from(data?.['tls.crt'] ?? '', 'base64'));
    for (const line of [
      `weir_webhook_certificate_expiry_timestamp_seconds{certificate="serving"} ${Date.parse(validTo) / 1000}`,
      'weir_webhook_leader 1',
      'weir_webhook_decisions_total{at="bind",decision="left",reason="down"} 2',
      'weir_webhook_decisions_total{at="bind",decision="left",reason="slow"} 1',
      'weir_webhook_manifests_asked_total{found="down"} 2',
    ])
      assert.ok(metrics?.includes(`${line}\n`), `${line} in\n${metrics}`);
  });

  test('goes on with new certificates when its Secret is emptied', async () => {
    const before = await stage.core.readNamespacedSecret({ namespace: NAMESPACE, name: NAME });
    await stage.api.kubectl(
      'patch',
      'secret',
      NAME,
      '--namespace',
      NAMESPACE,
      '--type=json',
      '--patch',
      EMPTIED,
    );
    await eventually('there are others', async () => {
      const { data } = await stage.core.readNamespacedSecret({ namespace: NAMESPACE, name: NAME });
      return data?.['tls.crt'] !== undefined && data['tls.crt'] !== before.data?.['tls.crt'];
    });
    await eventually('the API server goes by them', async () => {
      const { data } = await stage.core.readNamespacedSecret({ namespace: NAMESPACE, name: NAME });
      const { webhooks = [] } = await stage.admission.readMutatingWebhookConfiguration({
        name: NAME,
      });
      return (
        webhooks.length === 2 &&
        webhooks.every(({ clientConfig }) => clientConfig.caBundle === data?.['ca.crt'])
      );
    });
    await eventually('Pods are rewritten', rewrites);
  });

  test('lets Pods pass when it is killed, and is taken over by another replica', async () => {
    await webhook.stop('SIGKILL');
    assert.equal(await stage.imageOn('fallback', IMAGE), IMAGE);
    // The lease of the one that was killed has to run out before this one leads; it answers at once.
    webhook = await stage.startWebhook();
    await eventually('Pods are rewritten', rewrites);
    await stage.configure('enabled: false');
    await eventually('the other leads', async () => (await registered()) === undefined, 40_000);
    await stage.configure('');
    await eventually('it is registered', async () => (await registered())?.length === 2);
  });

  test('hands over when it is told to stop, and answers until then', async () => {
    const port = await freePort();
    const second = await stage.startWebhook({}, port);
    await eventually('Pods are rewritten', rewrites);
    assert.equal(await webhook.stop('SIGTERM'), 0);
    await second.line(/this replica leads/);
    await second.stop('SIGTERM');
    webhook = await stage.startWebhook();
    await webhook.line(/this replica leads/);
    await eventually('Pods are rewritten', rewrites);
  });

  test('serves with the certificates of a directory, when it is given one', async () => {
    const directory = await makeScratch();
    await webhook.stop('SIGTERM');
    const identity = await makeIdentity(directory, [`DNS:${NAME}.${NAMESPACE}.svc`]);
    const certDir = join(directory, 'tls');
    await mkdir(certDir);
    await writeFile(join(certDir, 'tls.crt'), identity.cert);
    await writeFile(join(certDir, 'tls.key'), identity.key);
    await writeFile(join(certDir, 'ca.crt'), identity.ca);
    webhook = await stage.startWebhook({ certDir });
    await eventually('the API server goes by them', async () => {
      const { webhooks = [] } = await stage.admission.readMutatingWebhookConfiguration({
        name: NAME,
      });
      return webhooks[0]?.clientConfig.caBundle === Buffer.from(identity.ca).toString('base64');
    });
    await eventually('Pods are rewritten', rewrites);
    await removeScratch(directory);
  });

  test('lets Pods pass while its certificate has run out, and takes the next one', async () => {
    const certDir = await makeScratch();
    await webhook.stop('SIGTERM');
    const now = Date.now();
    const at = (hours: number): Date => new Date(now + hours * 3_600_000);
    const authority = makeAuthority('test', { from: at(-3), to: at(1) });
    const put = async (to: Date): Promise<void> => {
      const { cert, key } = issue(authority, [`${NAME}.${NAMESPACE}.svc`], { from: at(-2), to });
      await writeFile(join(certDir, 'tls.key'), key);
      await writeFile(join(certDir, 'tls.crt'), cert);
    };
    await writeFile(join(certDir, 'ca.crt'), authority.cert);
    await put(at(-1));
    webhook = await stage.startWebhook({ certDir });
    await eventually('the API server goes by that authority', async () => {
      const found = await stage.admission.readMutatingWebhookConfiguration({ name: NAME });
      const bundle = found.webhooks?.[0]?.clientConfig.caBundle ?? '';
      return Buffer.from(bundle, 'base64').toString().trim() === authority.cert.trim();
    });
    for (let pod = 0; pod < 5; pod++) assert.equal(await stage.imageOn('fallback', IMAGE), IMAGE);
    await put(at(1));
    await eventually('Pods are rewritten', rewrites);
    await removeScratch(certDir);
  });

  test('lets Pods pass while it hangs', async () => {
    process.kill(webhook.pid, 'SIGSTOP');
    try {
      assert.equal(await stage.imageOn('fallback', IMAGE), IMAGE);
    } finally {
      process.kill(webhook.pid, 'SIGCONT');
    }
    await eventually('Pods are rewritten', rewrites);
  });

  test('is led by one replica at a time, whatever they do', async () => {
    process.env['KUBECONFIG'] = stage.api.kubeconfig;
    const kubernetes = connectKubernetes('test');
    const lease = { namespace: NAMESPACE, name: 'other' };
    const leading = new Set<string>();
    let most = 0;
    const make = (identity: string): Leader =>
      new Leader({
        kubernetes,
        lease,
        identity,
        durationMs: 1_500,
        changed: (isLeading) => {
          if (isLeading) leading.add(identity);
          else leading.delete(identity);
          most = Math.max(most, leading.size);
        },
        log: pino({ level: 'silent' }),
      });
    const leaders = new Map(['a', 'b', 'c'].map((identity) => [identity, make(identity)]));
    for (let round = 0; round < 3; round++) {
      await eventually('one leads', async () => leading.size === 1);
      const [first = ''] = leading;
      await leaders.get(first)?.close();
      leaders.delete(first);
      leaders.set(`${first}${round}`, make(`${first}${round}`));
    }
    await eventually('one leads', async () => leading.size === 1);
    for (const leader of leaders.values()) await leader.close();
    assert.equal(most, 1);
  });
});

const EMPTIED = JSON.stringify([{ op: 'remove', path: '/data' }]);
