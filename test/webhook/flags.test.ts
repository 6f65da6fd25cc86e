import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { readWebhookFlags, type WebhookFlags } from '../../cli/webhook-flags.ts';
import { UsageError } from '../../process/lifecycle.ts';

const flags: WebhookFlags = {
  configMap: 'weir/weir',
  listen: ':8443',
  status: ':8080',
  registry: 'http://weir.weir.svc:5000/',
  service: 'weir/weir-webhook',
  servicePort: '443',
  agentPort: '5701',
  clusterRole: 'weir-webhook',
  secret: 'certificates',
  lease: 'leader',
  rewriteTo: 'Mirror.corp',
};

suite('the flags of the webhook', () => {
  test('are read', () => {
    assert.deepEqual(readWebhookFlags(flags), {
      configMap: { namespace: 'weir', name: 'weir' },
      listen: { host: '', port: 8443 },
      status: { host: '', port: 8080 },
      registry: { url: 'http://weir.weir.svc:5000', rewriteTo: 'mirror.corp' },
      registryCa: undefined,
      service: { namespace: 'weir', name: 'weir-webhook', port: 443 },
      clusterRole: 'weir-webhook',
      secret: { namespace: 'weir', name: 'certificates' },
      lease: { namespace: 'weir', name: 'leader' },
      certDir: undefined,
      fallbackNodeSelector: '',
      agentPort: 5701,
    });
  });

  test('say where the door is, when that is where images are rewritten to', () => {
    const { registry } = readWebhookFlags({ ...flags, rewriteTo: '127.0.0.1:5800' });
    assert.deepEqual(registry, {
      url: 'http://weir.weir.svc:5000',
      rewriteTo: '127.0.0.1:5800',
      door: '127.0.0.1:5800',
    });
  });

  test('have an authority of their own for a registry over TLS', () => {
    const registry = 'https://weir.weir.svc:5000';
    const { registryCa, registry: place } = readWebhookFlags({ ...flags, registry, registryCa: '/ca.crt' });
    assert.deepEqual([registryCa, place.url], ['/ca.crt', registry]);
  });

  const wrong: Readonly<Record<string, [change: Partial<WebhookFlags>, message: RegExp]>> = {
    'a registry with a path': [{ registry: 'http://weir:5000/v2/' }, /--registry takes http/],
    'a registry without a scheme': [{ registry: 'weir:5000' }, /--registry takes http/],
    'an authority for a registry without TLS': [
      { registryCa: '/ca.crt' },
      /--registry-ca is for --registry https:\/\//,
    ],
    'a Service without its namespace': [{ service: 'weir-webhook' }, /--service takes NAMESPACE\/NAME/],
    'a port that is none': [{ servicePort: '0' }, /--service-port takes a port/],
    "an agents' port that is none": [{ agentPort: 'a' }, /--agent-port takes a port/],
    'a Secret of another namespace': [{ secret: 'other/certificates' }, /--secret takes/],
    'a host that is a name on Docker Hub': [
      { rewriteTo: 'mirror' },
      /--rewrite-to mirror would be Docker Hub/,
    ],
    'Docker Hub': [{ rewriteTo: 'docker.io' }, /--rewrite-to docker\.io would be Docker Hub/],
    'a host with a scheme': [{ rewriteTo: 'https://mirror.corp' }, /--rewrite-to takes HOST\[:PORT\]/],
  };
  for (const [what, [change, message]] of Object.entries(wrong))
    test(`are refused by name: ${what}`, () => {
      assert.throws(
        () => readWebhookFlags({ ...flags, ...change }),
        (error) => error instanceof UsageError && message.test(error.message),
      );
    });
});
