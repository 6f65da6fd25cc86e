import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { PatchStrategy, setHeaderOptions, type V1Pod } from '@kubernetes/client-node';
import { DOOR, eventually, imageOf, type MorePod, NAMESPACE, Stage } from './stage.ts';

const IMAGE = 'app:1';
const REWRITTEN = `${DOOR}/docker.io/library/app:1`;
const ORIGINALS = 'weir.dev/original-images';
const STRATEGIC = setHeaderOptions('Content-Type', PatchStrategy.StrategicMergePatch);

suite('Pods in a cluster with a node that cannot be configured', () => {
  let stage: Stage;
  before(async () => {
    stage = await Stage.open();
    await stage.startWebhook({ fallbackNodeSelector: 'bare' });
    await stage.makeNode('configured', { 'docker.io': 'configured', 'quay.io': 'configured' });
    await stage.makeNode('fallback', { 'docker.io': 'unsupported', 'quay.io': 'configured' });
    await stage.makeNode('crio', { 'docker.io': 'unsupported' }, { runtime: 'cri-o://1.34.0' });
    await stage.makeNode('has-it', { 'docker.io': 'unsupported' }, { images: ['docker.io/library/app:1'] });
    await stage.makeNamespace('left-alone', { 'weir.dev/rewrite': 'false' });
    await stage.makeNamespace('kube-team');
    await eventually(
      'a Pod is rewritten',
      async () => (await stage.imageOn('fallback', IMAGE)) === REWRITTEN,
    );
  });
  after(async () => {
    await stage?.close();
  });

  test('are pulled through the mirror there, and by their own names elsewhere', async () => {
    const pod = await stage.bind(await stage.makePod(IMAGE), 'fallback');
    assert.equal(imageOf(pod), REWRITTEN);
    assert.deepEqual(pod.metadata?.annotations, { [ORIGINALS]: JSON.stringify({ 'containers/app': IMAGE }) });
    assert.equal(pod.spec?.nodeName, 'fallback');
    const elsewhere = await stage.bind(await stage.makePod(IMAGE), 'configured');
    assert.equal(imageOf(elsewhere), IMAGE);
    assert.equal(elsewhere.metadata?.annotations, undefined);
  });

  test('are rewritten one and all when many are bound at once, and keep what else they have', async () => {
    const pods = await Promise.all(
      Array.from({ length: 60 }, () => stage.makePod(IMAGE, { annotations: { mine: 'yes' } })),
    );
    const nodes = pods.map((_, at) => (at % 2 === 0 ? 'fallback' : 'configured'));
    const bound = await Promise.all(pods.map((pod, at) => stage.bind(pod, nodes[at] ?? '')));
    assert.deepEqual(
      bound.map(imageOf),
      nodes.map((node) => (node === 'fallback' ? REWRITTEN : IMAGE)),
    );
    for (const { metadata } of bound) assert.equal(metadata?.annotations?.['mine'], 'yes');
  });

  test('are rewritten when they are made, image volumes too, where they name their node', async () => {
    const spec = {
      nodeName: 'fallback',
      automountServiceAccountToken: false,
      initContainers: [{ name: 'init', image: 'app:1' }],
      containers: [
        { name: 'app', image: IMAGE },
        { name: 'quay', image: 'quay.io/app:1' },
        { name: 'never', image: IMAGE, imagePullPolicy: 'Never' },
      ],
      volumes: [{ name: 'models', image: { reference: 'docker.io/library/app:1' } }],
    };
    const pod = await stage.makePod(IMAGE, { spec });
    assert.deepEqual(
      [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])].map(({ image }) => image),
      [REWRITTEN, 'quay.io/app:1', IMAGE, REWRITTEN],
    );
    assert.equal(pod.spec?.volumes?.[0]?.image?.reference, REWRITTEN);
    const names = {
      'containers/app': IMAGE,
      'initContainers/init': IMAGE,
      'volumes/models': 'docker.io/library/app:1',
    };
    assert.deepEqual(JSON.parse(pod.metadata?.annotations?.[ORIGINALS] ?? ''), names);
  });

  test('have the containers that are added to them rewritten, and no others', async () => {
    const pod = await stage.bind(await stage.makePod('quay.io/other:1'), 'fallback');
    const changed = await debug(stage, pod, 'first');
    assert.equal(changed.spec?.ephemeralContainers?.[0]?.image, REWRITTEN);
    const again = await debug(stage, pod, 'second');
    assert.deepEqual(again.spec?.ephemeralContainers?.map(({ image }) => image).toSorted(), [
      REWRITTEN,
      REWRITTEN,
    ]);
    assert.equal(imageOf(again), 'quay.io/other:1');
    const elsewhere = await stage.bind(await stage.makePod(IMAGE), 'configured');
    assert.equal((await debug(stage, elsewhere, 'first')).spec?.ephemeralContainers?.[0]?.image, IMAGE);
  });

  test('get their own names back when their first binding fails and they come to another node', async () => {
    const { admission } = stage;
    const name = 'no-binding';
    const refusing = {
      name: 'no-binding.example.com',
      admissionReviewVersions: ['v1'],
      clientConfig: { url: 'https://127.0.0.1:1/' },
      failurePolicy: 'Fail',
      sideEffects: 'None',
      rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods/binding'] }],
    };
    await admission.createValidatingWebhookConfiguration({
      body: { metadata: { name }, webhooks: [refusing] },
    });
    let refused: V1Pod | undefined;
    await eventually('a binding is refused', async () => {
      const pod = await stage.makePod(IMAGE);
      await stage.bind(pod, 'fallback').catch(() => (refused = pod));
      return refused !== undefined;
    });
    if (refused === undefined) throw new Error('no binding was refused');
    const { name: pod = '', namespace = '' } = refused.metadata ?? {};
    const waiting = await stage.core.readNamespacedPod({ name: pod, namespace });
    assert.equal(imageOf(waiting), REWRITTEN, 'the patch went before the binding');
    assert.equal(waiting.spec?.nodeName, undefined);
    await admission.deleteValidatingWebhookConfiguration({ name });
    const present = waiting;
    let bound: V1Pod | undefined;
    await eventually('a binding passes', async () => {
      bound = await stage.bind(present, 'configured');
      return true;
    });
    assert.equal(imageOf(bound ?? {}), IMAGE);
    assert.equal(bound?.metadata?.annotations, undefined);
  });

  const alone: Readonly<Record<string, { pod?: MorePod; node?: string; image?: string }>> = {
    'that say so': { pod: { annotations: { 'weir.dev/rewrite': 'false' } } },
    'of a namespace that says so': { pod: { namespace: 'left-alone' } },
    'of the release': { pod: { namespace: NAMESPACE } },
    'on a node that has the image': { node: 'has-it' },
    'on CRI-O, which wants TLS': { node: 'crio' },
    'that the mirror does not have': { image: 'missing:1' },
    'of no upstream': { image: 'ghcr.io/app:1' },
  };
  for (const [which, { pod = {}, node = 'fallback', image = IMAGE }] of Object.entries(alone))
    test(`are left alone: those ${which}`, async () => {
      const made = await stage.makePod(image, pod);
      assert.equal(imageOf(await stage.bind(made, node)), image);
    });

  test('are told why they are left, under the Pod itself', async () => {
    const pod = await stage.bind(await stage.makePod('absent:1'), 'fallback');
    const fieldSelector = `involvedObject.uid=${pod.metadata?.uid}`;
    await eventually('an Event tells', async () => {
      const { items } = await stage.core.listNamespacedEvent({
        namespace: 'default',
        fieldSelector,
      });
      const [event] = items;
      return (
        event?.reason === 'ImageNotRewritten' &&
        event.message === 'weir leaves absent:1 as it is: the mirror has no such manifest'
      );
    });
  });

  test('are only looked at in a dry run', async () => {
    const pod = await stage.makePod(IMAGE);
    assert.equal(imageOf(await stage.bind(pod, 'fallback', { dryRun: true })), IMAGE);
    assert.equal(imageOf(await stage.bind(pod, 'fallback')), REWRITTEN);
  });

  test('follow the namespaces that the configuration leaves out, by pattern too', async () => {
    const inTeam = async (): Promise<string | undefined> =>
      imageOf(await stage.bind(await stage.makePod(IMAGE, { namespace: 'kube-team' }), 'fallback'));
    assert.equal(await inTeam(), REWRITTEN);
    await stage.configure('excludeNamespaces: ["kube-*"]');
    await eventually('the namespace is left out', async () => (await inTeam()) === IMAGE);
    assert.equal(await stage.imageOn('fallback', IMAGE), REWRITTEN);
    await stage.configure('');
    await eventually('the namespace is let in', async () => (await inTeam()) === REWRITTEN);
  });

  test('follow what an agent says of its node', async () => {
    await stage.makeNode('changing', { 'docker.io': 'failed' });
    await eventually('it is known', async () => (await stage.imageOn('changing', IMAGE)) === REWRITTEN);
    await stage.api.kubectl('label', '--overwrite', 'node', 'changing', 'weir.dev/mirror=configured');
    await eventually('it is well again', async () => (await stage.imageOn('changing', IMAGE)) === IMAGE);
  });

  test('go by https to a host of its own on nodes that nobody looks after', async () => {
    await stage.makeNode('bare', {});
    await stage.api.kubectl('label', 'node', 'bare', 'bare=yes');
    await stage.configure('rewriteTo: mirror.corp');
    const name = 'mirror.corp/docker.io/library/app:1';
    await eventually('it is rewritten', async () => (await stage.imageOn('bare', IMAGE)) === name);
    assert.equal(await stage.imageOn('crio', IMAGE), name);
    await stage.configure('');
  });
});

async function debug(stage: Stage, { metadata }: V1Pod, name: string): Promise<V1Pod> {
  const place = { name: metadata?.name ?? '', namespace: metadata?.namespace ?? '' };
  const ephemeralContainers = [
    { name, image: IMAGE, terminationMessagePolicy: 'File', imagePullPolicy: 'Always' },
  ];
  const body = { spec: { ephemeralContainers } };
  return stage.core.patchNamespacedPodEphemeralcontainers({ ...place, body }, STRATEGIC);
}
