import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import * as z from 'zod';
import { formatAnswer, readReview } from '../../webhook/admission-review.ts';
import { broken, numbers } from './broken.ts';
import { CONFIG, podOf, request, Stage } from './stage.ts';

const answerSchema = z.strictObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  response: z.strictObject({
    uid: z.string(),
    allowed: z.literal(true),
    patchType: z.literal('JSONPatch').optional(),
    patch: z.base64().optional(),
    warnings: z.array(z.string().max(256)).optional(),
  }),
});
const patchSchema = z.array(z.object({ op: z.string(), path: z.string() }));

/** The paths that a patch may touch, whatever it was asked. */
const TOUCHED =
  /^\/(?:metadata\/uid|metadata\/annotations|metadata\/annotations\/weir\.dev~1original-images|spec\/(?:containers|initContainers|ephemeralContainers)\/\d+\/image|spec\/volumes\/\d+\/image\/reference)$/;

function reviews(): object[] {
  const metadata = {
    name: 'pod',
    namespace: 'default',
    uid: 'u',
    annotations: {},
    ownerReferences: [{ apiVersion: 'a/b', kind: 'C' }],
  };
  const spec = {
    ...podOf('nginx:1', { nodeName: 'fallback' }).spec,
    initContainers: [{ name: 'i', image: 'quay.io/a:1', imagePullPolicy: 'Always' }],
    ephemeralContainers: [{ name: 'e', image: 'busybox' }],
    volumes: [{ name: 'v', image: { reference: 'models:1' } }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [
            { matchFields: [{ key: 'metadata.name', operator: 'In', values: ['fallback'] }] },
          ],
        },
      },
    },
    nodeSelector: { 'kubernetes.io/hostname': 'fallback.host' },
  };
  const pod = { metadata, spec };
  const binding = { metadata, target: { kind: 'Node', name: 'fallback' } };
  return [
    request({ namespace: 'default', object: pod }),
    request({ namespace: 'default', subResource: 'binding', object: binding }),
    request({
      namespace: 'default',
      operation: 'UPDATE',
      subResource: 'ephemeralcontainers',
      object: pod,
      oldObject: { metadata, spec: {} },
    }),
  ].map((one) => ({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: one }));
}

suite('whatever an API server sends', () => {
  for (const mode of ['auto', 'always'])
    test(`is answered that it may pass, and nothing but images is changed (${mode})`, async () => {
      const stage = new Stage(`${CONFIG}fallback: ${mode}\n`);
      stage.cluster.addNode('fallback', { 'docker.io': 'failed', 'quay.io': 'bypassed' });
      const next = numbers(mode.length);
      let patches = 0;
      for (let round = 0; round < 1_000; round++)
        for (const whole of reviews()) {
          const text = JSON.stringify(broken(whole, next));
          stage.cluster.pods.set('pod', { ...podOf('nginx:1'), metadata: { name: 'pod', uid: 'u' } });
          const { uid, request: asked } = readReview(text);
          const answer = formatAnswer(uid, asked === undefined ? {} : await stage.answer(asked));
          const { response } = answerSchema.parse(JSON.parse(answer));
          if (response.patch === undefined) continue;
          patches += 1;
          for (const { path } of patchSchema.parse(
            JSON.parse(Buffer.from(response.patch, 'base64').toString()),
          ))
            assert.match(path, TOUCHED, text);
        }
      for (const { op, path } of stage.cluster.patches.flat()) if (op !== 'test') assert.match(path, TOUCHED);
      assert.ok(mode === 'always' || stage.cluster.patches.length > 300);
      assert.ok(patches > 300, `${patches} were rewritten, so that something was tried`);
    });

  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '"',
    '{"request":{}}',
    '{"request":{"uid":1}}',
    '\u0000',
    '{"request":null}',
  ])
    test(`is answered although it is no review: ${JSON.stringify(text)}`, () => {
      assert.deepEqual(readReview(text), { uid: '', request: undefined });
      answerSchema.parse(JSON.parse(formatAnswer('', {})));
    });

  test('is answered under its own id, although the rest cannot be read', () => {
    assert.deepEqual(readReview('{"request":{"uid":"7","operation":5}}'), { uid: '7', request: undefined });
  });
});
