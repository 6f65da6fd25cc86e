import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';
import { configWebhook, podsWanted, podWebhooks } from '../../webhook/registration.ts';

const service = { namespace: 'weir', name: 'weir-webhook', port: 443 };
const configOf = (lines: string) => parseConfig(`upstreams: { quay.io: {} }\n${lines}\n`).config;
const options = (lines: string) => ({ config: configOf(lines), service, authorities: 'PEM' });

const condition = (lines: string) => podWebhooks('auto', options(lines))[1]?.matchConditions;

suite('the registration', () => {
  const modes: readonly (readonly [lines: string, isNeeded: boolean, mode: string | undefined])[] = [
    ['', false, undefined],
    ['', true, 'auto'],
    ['fallback: always', false, 'always'],
    ['fallback: always', true, 'always'],
    ['fallback: never', true, undefined],
    ['enabled: false', true, undefined],
    ['enabled: false\nfallback: always', true, undefined],
  ];
  for (const [lines, isNeeded, mode] of modes)
    test(`is for ${mode ?? 'no'} Pods with "${lines.replace('\n', ', ')}" and ${isNeeded ? 'a' : 'no'} node that needs it`, () =>
      assert.equal(podsWanted(configOf(lines), isNeeded), mode));

  test('can stop nothing', () => {
    const all = [
      ...podWebhooks('auto', options('')),
      configWebhook({ namespace: 'weir', name: 'weir' }, options('')),
    ];
    assert.equal(all.length, 3);
    for (const { failurePolicy, timeoutSeconds, clientConfig } of all) {
      assert.deepEqual([failurePolicy, timeoutSeconds], ['Ignore', 2]);
      assert.equal(clientConfig.caBundle, Buffer.from('PEM').toString('base64'));
    }
  });

  test('is asked about what is made, and never about what becomes of it later', () => {
    const all = [
      ...podWebhooks('auto', options('')),
      ...podWebhooks('always', options('')),
      configWebhook({ namespace: 'weir', name: 'weir' }, options('')),
    ];
    const made = { apiGroups: [''], apiVersions: ['v1'], scope: 'Namespaced' };
    const pods = [
      { ...made, operations: ['CREATE'], resources: ['pods'] },
      { ...made, operations: ['UPDATE'], resources: ['pods/ephemeralcontainers'] },
    ];
    assert.deepEqual(Object.fromEntries(all.map(({ name, rules }) => [name, rules])), {
      'pods.weir.dev': pods,
      'bindings.weir.dev': [{ ...made, operations: ['CREATE'], resources: ['pods/binding'] }],
      'config.weir.dev': [{ ...made, operations: ['CREATE', 'UPDATE'], resources: ['configmaps'] }],
    });
    assert.deepEqual(
      all.map(({ sideEffects, reinvocationPolicy }) => [sideEffects, reinvocationPolicy]),
      [
        ['NoneOnDryRun', 'IfNeeded'],
        ['NoneOnDryRun', 'Never'],
        ['NoneOnDryRun', 'IfNeeded'],
        ['None', undefined],
      ],
    );
  });

  test('leaves out static Pods, which the API server has for the kubelet alone, and other ConfigMaps', () => {
    for (const mode of ['auto', 'always'] as const)
      assert.deepEqual(podWebhooks(mode, options(''))[0]?.matchConditions, [
        {
          name: 'not-static',
          expression:
            "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)",
        },
      ]);
    const edits = configWebhook({ namespace: 'weir', name: 'mine' }, options(''));
    assert.deepEqual(
      edits.matchConditions.map(({ expression }) => expression),
      ["has(object.metadata.name) && object.metadata.name == 'mine'"],
    );
    assert.deepEqual(edits.namespaceSelector.matchExpressions, [
      { key: 'kubernetes.io/metadata.name', operator: 'In', values: ['weir'] },
    ]);
  });

  test('is for bindings only where it matters to which node a Pod goes', () => {
    assert.deepEqual(
      podWebhooks('auto', options('')).map(({ name }) => name),
      ['pods.weir.dev', 'bindings.weir.dev'],
    );
    assert.deepEqual(
      podWebhooks('always', options('')).map(({ name }) => name),
      ['pods.weir.dev'],
    );
  });

  test('leaves out the release itself and namespaces, patterns by an expression', () => {
    const [pods] = podWebhooks('auto', options('excludeNamespaces: [kube-system, "*-private", "a?"]'));
    assert.deepEqual(pods?.namespaceSelector.matchExpressions, [
      { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['kube-system', 'weir'] },
    ]);
    assert.deepEqual(pods?.matchConditions.slice(0, -1), [
      { name: 'excluded-namespaces', expression: "!request.namespace.matches(r'^.*-private$|^a.$')" },
    ]);
  });

  test('lets in the namespaces that are named, and none when none is', () => {
    assert.deepEqual(condition('includeNamespaces: ["*", a]'), []);
    assert.deepEqual(condition('includeNamespaces: [a, "b-*"]'), [
      { name: 'included-namespaces', expression: "request.namespace.matches(r'^a$|^b-.*$')" },
    ]);
    assert.deepEqual(condition('includeNamespaces: []'), [
      { name: 'included-namespaces', expression: "request.namespace.matches(r'^$')" },
    ]);
  });

  test('goes by the authorities of the system where there is no other', () => {
    const [pods] = podWebhooks('auto', { ...options(''), authorities: '' });
    assert.equal('caBundle' in (pods?.clientConfig ?? {}), false);
  });
});
