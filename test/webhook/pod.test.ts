import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { imagesOf, podSchema, podToKeep } from '../../webhook/pod.ts';
import { podPatch } from '../../webhook/pod-patch.ts';
import { podOf } from './stage.ts';

const POD = {
  ...podOf('nginx:1', { volumes: [{ name: 'v', image: { reference: 'models:1' } }], tolerations: [{}] }),
  metadata: {
    name: 'pod',
    uid: 'u',
    managedFields: [{ manager: 'kubectl' }],
    annotations: { 'kubectl.kubernetes.io/last-applied-configuration': 'x'.repeat(10_000), mine: 'yes' },
  },
  status: { phase: 'Pending' },
};

suite('what is remembered of a Pod', () => {
  const kept = podToKeep(POD);

  test('is what decides about its images', () => {
    assert.deepEqual(kept, {
      metadata: { name: 'pod', uid: 'u', annotations: {} },
      spec: {
        containers: [{ name: 'app', image: 'nginx:1' }],
        volumes: [{ name: 'v', image: { reference: 'models:1' } }],
      },
    });
    const annotations = {
      'weir.dev/rewrite': 'false',
      'weir.dev/original-images': '{}',
      'kubernetes.io/config.source': 'file',
    };
    const metadata = { ...POD.metadata, annotations: { ...POD.metadata.annotations, ...annotations } };
    assert.deepEqual(podToKeep({ ...POD, metadata })?.metadata.annotations, annotations);
  });

  test('is enough for the very same patch', () => {
    assert.ok(kept !== undefined);
    const originals = new Map([['containers/app', 'nginx:1']]);
    const [patch, same] = [podSchema.parse(POD), kept].map((pod) => {
      const changes = imagesOf(pod).map((image) => ({ image, name: `mirror/${image.image}` }));
      return podPatch(pod, changes, originals, { isUnbound: true });
    });
    assert.deepEqual(same, patch);
  });

  test('is nothing where it is no Pod', () => {
    for (const odd of [undefined, {}, { metadata: {}, spec: 'odd' }]) assert.equal(podToKeep(odd), undefined);
  });
});
