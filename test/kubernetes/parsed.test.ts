import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { selectorText } from '../../kubernetes/agents.ts';
import type { ObjectOf } from '../../kubernetes/api.ts';
import { textIn } from '../../kubernetes/config-map.ts';
import { readyReplicas } from '../../kubernetes/replicas.ts';
import { urlOfService } from '../../kubernetes/service-address.ts';
import { pulledOf } from '../../kubernetes/trial-pod.ts';

type Slice = ObjectOf<'endpointslices'>;

const slice = (
  addressType: string,
  endpoints: Slice['endpoints'] & {},
  ports: Slice['ports'] = [{ name: 'registry', port: 5000 }],
): Slice => ({ addressType, endpoints, ports });

const endpoint = (name: string, address: string, ready?: boolean) => ({
  addresses: [address],
  targetRef: { kind: 'Pod', name },
  conditions: ready === undefined ? {} : { ready },
});

suite('the replicas in EndpointSlices', () => {
  test('are those that are ready, each Pod once and by IPv4 where it has both', () => {
    const slices = [
      slice('IPv6', [endpoint('a', 'fd00::1', true), endpoint('c', 'fd00::3', true)]),
      slice('IPv4', [
        endpoint('a', '10.0.0.1', true),
        endpoint('b', '10.0.0.2', false),
        endpoint('d', '10.0.0.4'),
      ]),
    ];
    assert.deepEqual(readyReplicas(slices), [
      { name: 'a', host: '10.0.0.1', port: 5000 },
      { name: 'c', host: 'fd00::3', port: 5000 },
      { name: 'd', host: '10.0.0.4', port: 5000 },
    ]);
  });

  test('are none where there is no port of the registry, no address, or a kind of address that cannot be asked', () => {
    const endpoints = [{ addresses: ['10.0.0.1'] }];
    assert.deepEqual(readyReplicas([slice('IPv4', endpoints, [{ name: 'metrics', port: 1 }])]), []);
    assert.deepEqual(readyReplicas([slice('FQDN', endpoints)]), []);
    assert.deepEqual(readyReplicas([slice('IPv4', [{ addresses: [] }])]), []);
    assert.deepEqual(readyReplicas([]), []);
  });
});

const place = { namespace: 'weir', name: 'weir' };
const reasonOf = (found: Parameters<typeof textIn>[0]): string => {
  const text = textIn(found, place);
  return text.kind === 'missing' ? text.reason : assert.fail('it is there');
};

suite('the configuration in a ConfigMap', () => {
  test('is its key config.yaml, or the only one that it has', () => {
    const both = textIn({ data: { 'config.yaml': 'a', other: 'b' } }, place);
    assert.deepEqual(both, { kind: 'text', text: 'a', origin: 'ConfigMap weir/weir, config.yaml' });
    const only = textIn({ data: { 'config.yml': 'c' } }, place);
    assert.deepEqual(only, { kind: 'text', text: 'c', origin: 'ConfigMap weir/weir, config.yml' });
  });

  test('is missing with a reason', () => {
    assert.equal(reasonOf(undefined), 'ConfigMap weir/weir is not there');
    assert.equal(reasonOf({}), 'ConfigMap weir/weir has no key config.yaml');
    assert.equal(reasonOf({ data: { a: '', b: '' } }), 'ConfigMap weir/weir has no key config.yaml');
    assert.match(reasonOf({ binaryData: { 'config.yaml': '/w==' } }), /the one in binaryData is no text/);
  });
});

test("a DaemonSet's selector is asked for as it is written", () => {
  assert.equal(selectorText({ matchLabels: { a: '1', b: '2' } }), 'a=1,b=2');
  const matchExpressions = [
    { key: 'c', operator: 'In', values: ['1', '2'] },
    { key: 'd', operator: 'NotIn', values: ['3'] },
    { key: 'e', operator: 'Exists' },
    { key: 'f', operator: 'DoesNotExist' },
  ];
  assert.equal(selectorText({ matchExpressions }), 'c in (1,2),d notin (3),e,!f');
});

suite("a Service's URL", () => {
  const service = { spec: { clusterIP: 'fd00::10', ports: [{ port: 5000, nodePort: 30_500 }] } };

  test('is its cluster IP, or a port of the node, in brackets where it is IPv6', () => {
    assert.equal(urlOfService(service, 's', { kind: 'service' }), 'http://[fd00::10]:5000');
    const ofNode = urlOfService(service, 's', { kind: 'nodePort', nodeAddress: '10.0.0.7' });
    assert.equal(ofNode, 'http://10.0.0.7:30500');
  });

  test('is refused where there is none', () => {
    const headless = { spec: { clusterIP: 'None', ports: [{ port: 5000 }] } };
    assert.throws(
      () => urlOfService(headless, 'Service a/b', { kind: 'service' }),
      /Service a\/b has no cluster IP/,
    );
    const by = { kind: 'nodePort', nodeAddress: '10.0.0.7' } as const;
    assert.throws(() => urlOfService(headless, 'Service a/b', by), /no node port; set nodePort\.enabled/);
  });
});

const pod = (imageID: string, reason?: string): ObjectOf<'pods'> => ({
  status: {
    containerStatuses: [
      {
        image: 'i',
        imageID,
        name: 'c',
        ready: false,
        restartCount: 0,
        ...(reason === undefined ? {} : { state: { waiting: { reason, message: 'no such image' } } }),
      },
    ],
  },
});

test('a Pod says whether its image was pulled, whatever became of its container', () => {
  assert.deepEqual(pulledOf(pod('sha256:1', 'CreateContainerConfigError')), { kind: 'pulled' });
  assert.deepEqual(pulledOf(pod('', 'ContainerCreating')), { kind: 'waiting' });
  // kubelet has no image ID to tell of a container that could not be made.
  for (const after of ['CreateContainerError', 'CreateContainerConfigError', 'RunContainerError'])
    assert.deepEqual(pulledOf(pod('', after)), { kind: 'pulled' }, after);
  for (const before of ['ErrImagePull', 'ImagePullBackOff', 'InvalidImageName', 'RegistryUnavailable'])
    assert.deepEqual(pulledOf(pod('', before)), { kind: 'failed', reason: 'no such image' }, before);
  assert.deepEqual(pulledOf({}), { kind: 'waiting' });
  const evicted = { status: { phase: 'Failed', reason: 'OutOfcpu' } };
  assert.deepEqual(pulledOf(evicted), { kind: 'failed', reason: 'OutOfcpu' });
});
