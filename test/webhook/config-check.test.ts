import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkEdit } from '../../webhook/config-check.ts';

const REGISTRY = { url: 'http://weir-registry.weir.svc:5000', rewriteTo: '127.0.0.1:5700' };
const origin = 'ConfigMap weir/weir, config.yaml';
const said = (text: string) => checkEdit({ kind: 'text', text, origin }, REGISTRY);

suite('an edit of the configuration', () => {
  test('passes when all is well', () => {
    assert.deepEqual(said('upstreams: { quay.io: {} }\n'), { warnings: [] });
  });

  test('passes with warnings, each with its line', () => {
    const { refusal, warnings } = said('upstreams:\n  a.io: { endpoint: "http://a.io" }\n');
    assert.equal(refusal, undefined);
    assert.match(
      warnings?.[0] ?? '',
      /^config\.yaml:2:\d+: warning: upstreams\.a\.io\.endpoint: over plain http/,
    );
  });

  test('is refused with every problem and its line when it cannot be read', () => {
    const { refusal = '' } = said('upstreams:\n  quay.io: { mirrr: x }\nenabld: true\n');
    assert.match(
      refusal,
      /^ConfigMap weir\/weir, config\.yaml:2:\d+: error: upstreams\.quay\.io\.mirrr: the key is not known/,
    );
    assert.match(refusal, /\n.*config\.yaml:3:1: error: enabld/);
    assert.match(said('upstreams: {\n').refusal ?? '', /config\.yaml:\d+:\d+: error/);
  });

  test('is refused when the configuration would be gone', () => {
    const { refusal } = checkEdit(
      { kind: 'missing', reason: 'ConfigMap weir/weir has no key config.yaml' },
      REGISTRY,
    );
    assert.match(refusal ?? '', /has no key config\.yaml/);
  });

  const loops: Readonly<Record<string, string>> = {
    'the Service': 'mirror: "http://weir-registry.weir:5000"',
    'the Service, from its own namespace': 'mirror: "http://weir-registry:80"',
    'the Service in full': 'endpoint: "https://weir-registry.weir.svc.cluster.local"',
    'the door': 'mirror: "http://127.0.0.1:5700/docker.io"',
  };
  for (const [what, line] of Object.entries(loops))
    test(`is refused when weir would ask itself: ${what}`, () => {
      const { refusal = '' } = said(`enabled: true\nupstreams:\n  quay.io:\n    ${line}\n`);
      assert.match(refusal, /config\.yaml:4:5: error: upstreams\.quay\.io\.\w+: .* is weir itself/);
    });

  test('is refused when weir would ask itself by the host that images are rewritten to', () => {
    const { refusal = '' } = said(
      'rewriteTo: mirror.corp\nupstreams: { quay.io: { mirror: mirror.corp } }\n',
    );
    assert.match(refusal, /config\.yaml:2:\d+: error: .* mirror\.corp is weir itself/);
  });

  test('is refused when it names another address of the loopback than the door', () => {
    const text = 'upstreams: { quay.io: {} }\nrewriteTo: 127.0.0.1:';
    assert.match(
      said(`${text}9999\n`).refusal ?? '',
      /config\.yaml:2:1: error: rewriteTo: nodes have their door at 127\.0\.0\.1:5700, and not at 127\.0\.0\.1:9999/,
    );
    assert.deepEqual(said(`${text}5700\n`), { warnings: [] });
  });

  test('is let in with the door that the chart says, whatever its port', () => {
    const registry = { ...REGISTRY, rewriteTo: '127.0.0.1:5800' };
    const text = 'upstreams: { quay.io: {} }\nrewriteTo: "127.0.0.1:5800"\n';
    assert.deepEqual(checkEdit({ kind: 'text', text, origin }, registry), { warnings: [] });
  });

  test('is told what is wrong when the webhook was started with the name of an upstream', () => {
    const registry = { ...REGISTRY, rewriteTo: 'quay.io' };
    const edit = (text: string) => checkEdit({ kind: 'text', text, origin }, registry);
    for (const text of ['upstreams: { quay.io: {} }\n', 'proxies: { quay.io: m.example }\n'])
      assert.match(
        edit(text).refusal ?? '',
        /:1:\d+: error: \w+\.quay\.io: quay\.io is what the webhook was started with/,
      );
    assert.deepEqual(edit('upstreams: { quay.io: {} }\nrewriteTo: mirror.corp\n'), { warnings: [] });
    assert.deepEqual(edit('upstreams: { ghcr.io: {} }\n'), { warnings: [] });
  });

  test('is warned of "always" only where the webhook was started with the door', () => {
    const edited = { kind: 'text', text: 'upstreams: { quay.io: {} }\nfallback: always\n', origin } as const;
    const edit = (rewriteTo: string) => checkEdit(edited, { ...REGISTRY, rewriteTo });
    assert.match(
      edit('127.0.0.1:5700').warnings?.join() ?? '',
      /fallback: "always" gives Pods the name of the door/,
    );
    assert.deepEqual(edit('mirror.corp'), { warnings: [] });
  });

  test('passes with mirrors that only look alike', () => {
    for (const mirror of ['weir-registry.other:5000', 'weir-registry.weir.example.com', '127.0.0.1:5701'])
      assert.equal(
        said(`upstreams: { quay.io: { mirror: "https://${mirror}" } }\n`).refusal,
        undefined,
        mirror,
      );
  });
});
