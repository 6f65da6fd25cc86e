// What holds the webhook's account to images of Pods that wait for a node, and there to the mirror's.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { CoreV1Api, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import { CHART, render, runTool } from '../../charts/helm.ts';
import { parseConfig } from '../../config/parse.ts';
import { apiProblem } from '../../kubernetes/client.ts';
import { patchPod } from '../../kubernetes/pod-index.ts';
import { KnownNames } from '../../webhook/known-names.ts';
import { imagesOf, podSchema } from '../../webhook/pod.ts';
import { podPatch } from '../../webhook/pod-patch.ts';
import { settle } from '../../webhook/settlement.ts';
import { eventually } from '../containerd/weir.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { ADMINISTRATOR, clientAs, connectAs, createObject, tokenOf } from './account.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { flagsOf } from './cases.ts';

const NAMESPACE = 'mirrors';
const APPS = 'apps';
const NAME = 'weir-webhook';
const KIND = 'admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy';
const MERGE_PATCH = setHeaderOptions('Content-Type', PatchStrategy.StrategicMergePatch);
const ANNOTATION = 'weir.dev/original-images';
const DIGEST = `sha256:${'0'.repeat(64)}`;

const values = {
  webhook: { enabled: true },
  config: {
    upstreams: {
      'docker.io': {},
      'ghcr.io': {},
      'localhost:5000': {},
      '[fd00::5]:5000': {},
      'quay.io': { via: 'node', mirror: 'https://mirror.corp:8443/v2/quay' },
      'registry.k8s.io': { via: 'node', mirror: 'https://K8s.corp' },
    },
  },
};
const { config } = parseConfig(JSON.stringify(values.config));
const registry = { url: 'http://weir.mirrors.svc:5000', rewriteTo: '127.0.0.1:5700' };
const names = new KnownNames();
names.note({ config, registry });
const everything = { look: () => Promise.resolve('there' as const) };

suite("the webhook's account in a cluster", () => {
  let scratch: string;
  let api: ApiServer;
  let token: string;

  before(async () => {
    scratch = await makeScratch();
    api = await startApiServer(scratch);
    for (const namespace of [NAMESPACE, APPS]) await api.kubectl('create', 'namespace', namespace);
    const flags = ['--namespace', NAMESPACE, '--kubeconfig', api.kubeconfig];
    await runTool('helm', 'install', 'weir', CHART, ...flags, ...flagsOf(values));
    await create({ kind: 'ServiceAccount', metadata: { name: 'default', namespace: APPS } });
    await create({ kind: 'ServiceAccount', metadata: { name: 'other', namespace: NAMESPACE } });
    await create(podNamed('waiting', { app: 'nginx:1' }));
    token = await tokenOf(api, NAMESPACE, NAME);
    const isObeyed = (): Promise<boolean> => attempt(token, labelled).then((said) => said !== undefined);
    await eventually('the API server obeys the policy', isObeyed);
  });
  after(async () => {
    await api?.stop();
    await removeScratch(scratch);
  });

  const create = (object: object): Promise<void> => createObject(api, scratch, object);
  const as = async (owner: string): Promise<CoreV1Api> =>
    (await clientAs(owner, api, scratch)).makeApiClient(CoreV1Api);
  /** What the API server says against a patch; nothing is changed by it. `undefined`: nothing. */
  const attempt = async (owner: string, body: object, name = 'waiting'): Promise<string | undefined> => {
    const core = await as(owner);
    try {
      await core.patchNamespacedPod({ namespace: APPS, name, body, dryRun: 'All' }, MERGE_PATCH);
      return undefined;
    } catch (error) {
      return apiProblem('patch', error).message;
    }
  };
  /** Has the webhook settle what a Pod's images are called, as it does when the Pod gets a node. */
  const settleAs = async (owner: string, name: string, node: 'any' | 'mirrored'): Promise<string> => {
    const kubernetes = await connectAs(owner, api, scratch);
    const pod = podSchema.parse(await kubernetes.read('pods', { namespace: APPS, name }));
    const images = imagesOf(pod);
    const by = { config, registry, names, probe: everything, cluster: { isDeserted: async () => false } };
    const settled = await settle({ pod, images, node, isMade: true, ...by });
    const patch = podPatch(pod, settled.changes, settled.originals, { isUnbound: true });
    assert.ok(settled.changes.length > 0);
    return patchPod(kubernetes, { namespace: APPS, name }, patch);
  };
  const imagesIn = async (name: string): Promise<string[]> => {
    const core = await as(ADMINISTRATOR);
    return imagesOf(podSchema.parse(await core.readNamespacedPod({ namespace: APPS, name }))).map(
      ({ image }) => image,
    );
  };

  const references: Readonly<Record<string, string>> = {
    nginx: '127.0.0.1:5700/docker.io/library/nginx:latest',
    'nginx:1': '127.0.0.1:5700/docker.io/library/nginx:1',
    'team/app:1': '127.0.0.1:5700/docker.io/team/app:1',
    'index.docker.io/nginx:1': '127.0.0.1:5700/docker.io/library/nginx:1',
    'registry-1.docker.io/team/app': '127.0.0.1:5700/docker.io/team/app:latest',
    'ghcr.io/a/b/c:1': '127.0.0.1:5700/ghcr.io/a/b/c:1',
    [`GHCR.io/a/b@${DIGEST}`]: `127.0.0.1:5700/ghcr.io/a/b@${DIGEST}`,
    [`ghcr.io/a/b:1@${DIGEST}`]: `127.0.0.1:5700/ghcr.io/a/b:1@${DIGEST}`,
    [`nginx@${DIGEST}`]: `127.0.0.1:5700/docker.io/library/nginx@${DIGEST}`,
    'localhost:5000/a:1': '127.0.0.1:5700/localhost-5000/a:1',
    '[fd00::5]:5000/a/b:1': '127.0.0.1:5700/fd00--5-5000/a/b:1',
    'quay.io/a/b:1': 'mirror.corp:8443/quay/a/b:1',
    'registry.k8s.io/pause': 'k8s.corp/pause:latest',
  };

  test('may give every image the name that the webhook gives it, and its own name back', async () => {
    const containers = Object.fromEntries(
      Object.keys(references).map((image, index) => [`c${index}`, image]),
    );
    await create(podNamed('all', { ...containers, other: 'elsewhere.example/a' }, { init: 'busybox:1' }));
    const original = await imagesIn('all');
    assert.equal(await settleAs(token, 'all', 'any'), 'patched');
    assert.deepEqual(await imagesIn('all'), [
      ...Object.values(references),
      'elsewhere.example/a',
      '127.0.0.1:5700/docker.io/library/busybox:1',
    ]);
    assert.equal(await settleAs(token, 'all', 'mirrored'), 'patched');
    assert.deepEqual(await imagesIn('all'), original);
  });

  test('keeps what is said of the images of volumes, and of containers that it does not touch', async () => {
    const told = { 'volumes/models': 'ghcr.io/a/models:1', 'containers/first': 'nginx:1' };
    const pod = podNamed('told', { first: references['nginx:1'] ?? '', second: 'nginx:2' });
    const reference = '127.0.0.1:5700/ghcr.io/a/models:1';
    const volumes = [{ name: 'models', image: { reference, pullPolicy: 'IfNotPresent' } }];
    const metadata = { ...pod.metadata, annotations: { a: 'b', [ANNOTATION]: JSON.stringify(told) } };
    await create({ ...pod, metadata, spec: { ...pod.spec, volumes } });
    assert.equal(await settleAs(token, 'told', 'any'), 'patched');
    const said = await api.kubectl(
      'get',
      'pod',
      'told',
      '--namespace',
      APPS,
      '--output',
      'jsonpath={.metadata.annotations.weir\\.dev/original-images}',
    );
    assert.deepEqual(JSON.parse(said), { ...told, 'containers/second': 'nginx:2' });
  });

  test('may do so in a Pod of 150 containers, which is more than Pods have', async () => {
    const many = Object.fromEntries(Array.from({ length: 150 }, (_, at) => [`c${at}`, `ghcr.io/a/b:${at}`]));
    const env = Array.from({ length: 40 }, (_, at) => ({ name: `E${at}`, value: 'x'.repeat(40) }));
    await create(podNamed('large', many, { init: 'nginx' }, { env }));
    assert.equal(await settleAs(token, 'large', 'any'), 'patched');
    assert.equal(await settleAs(token, 'large', 'mirrored'), 'patched');
  });

  const labelled = { metadata: { labels: { a: 'b' } } };
  const image = (name: string, told?: string): object => ({
    ...(told === undefined ? {} : { metadata: { annotations: { [ANNOTATION]: told } } }),
    spec: { containers: [{ name: 'app', image: name }] },
  });
  const first = references['nginx:1'] ?? '';
  // The API server gives these to every Pod, and lets nobody take them away.
  const tolerations = ['not-ready', 'unreachable'].map((condition) => ({
    key: `node.kubernetes.io/${condition}`,
    operator: 'Exists',
    effect: 'NoExecute',
    tolerationSeconds: 300,
  }));
  const refusals: readonly (readonly [what: string, patch: object, sentence: RegExp])[] = [
    ['a label', labelled, /only touch the annotation/],
    ['another annotation', { metadata: { annotations: { a: 'b' } } }, /only touch the annotation/],
    ['an annotation that is there', { metadata: { annotations: { owner: 'b' } } }, /only touch the annot/],
    ['taking an annotation away', { metadata: { annotations: { owner: null } } }, /only touch the annot/],
    ['a finalizer', { metadata: { finalizers: ['weir.dev/a'] } }, /only touch the annotation/],
    [
      'a toleration',
      { spec: { tolerations: [...tolerations, { operator: 'Exists' }] } },
      /only touch images/,
    ],
    ['a deadline', { spec: { activeDeadlineSeconds: 1 } }, /only touch images/],
    [
      'letting a Pod go to a node',
      { spec: { schedulingGates: [{ $patch: 'replace' }] } },
      /only touch images/,
    ],
    ['another image', image('evil.example/a:1'), /only give an image the name that it has in a mirror/],
    ['another image of the mirror', image('127.0.0.1:5700/docker.io/evil/nginx:1'), /only give an image/],
    [
      'another image of the mirror that says what it was',
      image('127.0.0.1:5700/docker.io/evil/nginx:1', '{"containers/app":"nginx:1"}'),
      /only give an image/,
    ],
    ['a mirror without a word', image(first), /only give an image the name/],
    [
      'a mirror that is not configured',
      image('evil.example/docker.io/library/nginx:1', '{"containers/app":"nginx:1"}'),
      /only give an image the name/,
    ],
    ['a tag', image('127.0.0.1:5700/docker.io/library/nginx:2', '{"containers/app":"nginx:1"}'), /only give/],
    ['a lie', image(first, '{"containers/app":"evil.example/a:1"}'), /says what images were called before/],
    [
      'a lie beside the truth',
      image(first, '{"containers/app":"nginx:1","containers/app":"evil.example/a:1"}'),
      /says what images were called before/,
    ],
    ['a lie of another', image(first, '{"containers/app":"nginx:1","volumes/a":"evil:1"}'), /says what/],
    ['a lie alone', { metadata: { annotations: { [ANNOTATION]: '{"containers/app":"nginx:1"}' } } }, /says/],
    ['what is no JSON', image(first, '{"containers/app":"nginx:1"},'), /says what images were called/],
    [
      'what hides in the JSON',
      image(first, String.raw`{"containers/app":"nginx:1","a":"\"containers/app\":\"evil:1\""}`),
      /says what images were called before/,
    ],
  ];
  for (const [what, patch, sentence] of refusals)
    test(`is refused: ${what}`, async () => {
      assert.match((await attempt(token, patch)) ?? '', sentence);
      assert.equal(await attempt(ADMINISTRATOR, patch), undefined, 'it would be no use without the policy');
    });

  test('is refused in a Pod that is on a node, where it would start a container anew', async () => {
    const pod = podNamed('bound', { app: 'nginx:1' });
    await create({ kind: 'Node', metadata: { name: 'node-1' } });
    await create({ ...pod, spec: { ...pod.spec, schedulingGates: [], nodeName: 'node-1' } });
    const patch = image(first, '{"containers/app":"nginx:1"}');
    assert.equal(await attempt(token, patch), undefined);
    assert.match((await attempt(token, patch, 'bound')) ?? '', /only touch Pods that wait for a node/);
    assert.equal(await attempt(ADMINISTRATOR, patch, 'bound'), undefined);
  });

  test('is the only one that is held', async () => {
    const role = ['clusterrolebinding', 'other', `--clusterrole=${NAME}`];
    await api.kubectl('create', ...role, `--serviceaccount=${NAMESPACE}:other`);
    const other = await tokenOf(api, NAMESPACE, 'other');
    for (const [, patch] of refusals) assert.equal(await attempt(other, patch), undefined);
  });
});

test('the policies are there where the cluster has such, or is new enough as far as is known', async () => {
  assert.equal(await policies(), 2);
  assert.equal(await policies('--kube-version', '1.29.9'), 0);
  assert.equal(await policies('--api-versions', 'v1/Pod', '--api-versions', KIND), 2);
  assert.equal(await policies('--api-versions', 'v1/Pod'), 0);
  assert.equal(await policies('--set', 'webhook.podPolicy=false'), 0);
});

async function policies(...flags: readonly string[]): Promise<number> {
  const enabled = ['--set', 'webhook.enabled=true,agent.nodePolicy=false'];
  const text = await render(NAMESPACE, ...enabled, ...flags);
  return text.split('kind: ValidatingAdmissionPolicy\n').length - 1;
}

/** A Pod that waits for a node, and is held back from getting one. */
function podNamed(
  name: string,
  containers: Readonly<Record<string, string>>,
  initContainers: Readonly<Record<string, string>> = {},
  more: object = {},
) {
  const list = (images: Readonly<Record<string, string>>) =>
    Object.entries(images).map(([container, image]) => ({ name: container, image, ...more }));
  return {
    kind: 'Pod',
    metadata: { name, namespace: APPS, annotations: { owner: 'a' } },
    spec: {
      schedulingGates: [{ name: 'weir.dev/test' }],
      containers: list(containers),
      initContainers: list(initContainers),
    },
  };
}
