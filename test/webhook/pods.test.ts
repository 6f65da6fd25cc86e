import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseConfig } from '../../config/parse.ts';
import { distinctNeeds, fallbackNode } from '../../webhook/fallback-node.ts';
import { rewriteImage, tellAstray } from '../../webhook/rewrite.ts';
import { CONFIG, imagesIn, originalsIn, podOf, REGISTRY, request, Stage } from './stage.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const DOCKER_ONLY = {
  'docker.io': 'unsupported',
  'quay.io': 'configured',
  'gcr.io': 'failed',
  'plain.io': 'failed',
};

/** With a node that cannot mirror Docker Hub. */
function stage(yaml = CONFIG): Stage {
  const made = new Stage(yaml);
  made.cluster.addNode('fallback', DOCKER_ONLY);
  return made;
}

/** With nodes that cannot use every name, while every Pod is rewritten. */
function always(): Stage {
  const now = stage(`${CONFIG}fallback: always\n`);
  now.cluster.addNode('crio', DOCKER_ONLY, { runtime: 'cri-o' });
  now.cluster.addNode('bare', undefined);
  now.cluster.addNode('full', DOCKER_ONLY, { images: ['quay.io/app:1'] });
  return now;
}

suite('a name', () => {
  const names: Readonly<Record<string, string>> = {
    nginx: '127.0.0.1:5700/docker.io/library/nginx:latest',
    'nginx:1.27': '127.0.0.1:5700/docker.io/library/nginx:1.27',
    'bitnami/redis:7': '127.0.0.1:5700/docker.io/bitnami/redis:7',
    'docker.io/nginx:1': '127.0.0.1:5700/docker.io/library/nginx:1',
    'index.docker.io/library/nginx:1': '127.0.0.1:5700/docker.io/library/nginx:1',
    [`nginx@${DIGEST}`]: `127.0.0.1:5700/docker.io/library/nginx@${DIGEST}`,
    [`nginx:1@${DIGEST}`]: `127.0.0.1:5700/docker.io/library/nginx:1@${DIGEST}`,
    'quay.io/org/app:1': '127.0.0.1:5700/quay.io/org/app:1',
    'gcr.io/org/app:1': 'mirror.example/gcr/org/app:1',
    // Not an upstream, or not a name.
    'ghcr.io/org/app:1': 'ghcr.io/org/app:1',
    'localhost/app': 'localhost/app',
    'localhost:5000/app': 'localhost:5000/app',
    'quay.io:443/app': 'quay.io:443/app',
    '127.0.0.1:5700/docker.io/library/nginx:1': '127.0.0.1:5700/docker.io/library/nginx:1',
    UPPER: 'UPPER',
    'a@b': 'a@b',
    // Longer than a name may be, with what goes before it.
    [`a/${'b'.repeat(250)}`]: `a/${'b'.repeat(250)}`,
    // As long as a name may be with its host, and one more.
    [`quay.io/${'b'.repeat(232)}:1`]: `127.0.0.1:5700/quay.io/${'b'.repeat(232)}:1`,
    [`quay.io/${'b'.repeat(233)}:1`]: `quay.io/${'b'.repeat(233)}:1`,
    // A mirror that nodes would ask for TLS.
    'plain.io/app:1': 'plain.io/app:1',
  };
  for (const [before, after] of Object.entries(names))
    test(`${shown(before)} becomes ${shown(after)}`, async () => {
      const { create } = bound(stage(`${CONFIG}fallback: always\n`));
      assert.deepEqual(imagesIn(await create(podOf(before))), [after]);
      assert.deepEqual(imagesIn(await create(podOf(after))), [after], 'and never twice');
    });
});

suite('a name that would lead elsewhere', () => {
  const mirrors: Readonly<Record<string, readonly [mirror: string, why: string]>> = {
    'a host that no reference can have': ['https://my_mirror.corp', 'misread'],
    'a path that no reference can have': ['https://mirror.corp/a..b', 'misread'],
    'a name of Docker Hub': ['https://registry-1.docker.io/mirror', 'misread'],
    'a path that is too long': [`https://mirror.corp/${'a'.repeat(252)}`, 'too-long'],
  };
  for (const [what, [mirror, why]] of Object.entries(mirrors))
    test(`is given to no image: ${what}`, async () => {
      const now = stage(`upstreams: { gcr.io: { mirror: "${mirror}", via: node } }\n`);
      assert.deepEqual(imagesIn(await now.bind(podOf('gcr.io/app:1'), 'fallback')), ['gcr.io/app:1']);
      assert.deepEqual([now.asked, now.cluster.told.map((doubt) => doubt.why)], [[], [why]]);
    });

  test('is given to no image when it would be on Docker Hub, whatever was let in', () => {
    const { config } = parseConfig(CONFIG);
    for (const rewriteTo of ['mirror', 'registry-1.docker.io'])
      assert.equal(rewriteImage('quay.io/app:1', config, { ...REGISTRY, rewriteTo }).kind, 'unnamed');
  });
});

suite('rewriteTo that does not lead to weir', () => {
  const wrong: Readonly<Record<string, readonly [rewriteTo: string, why: string, told: RegExp]>> = {
    'an upstream': ['registry.k8s.io', 'upstream', /registry\.k8s\.io .* is an upstream/],
    'not the door': ['127.0.0.1:9999', 'no-door', /door at 127\.0\.0\.1:5700, and not at 127\.0\.0\.1:9999/],
  };
  for (const [what, [rewriteTo, why, told]] of Object.entries(wrong))
    test(`leaves images as they are, and says so: ${what}`, async () => {
      const registry = { ...REGISTRY, rewriteTo, door: '127.0.0.1:5700' };
      for (const more of ['', 'fallback: always\n']) {
        const now = new Stage(`${CONFIG}${more}`, { registry });
        now.cluster.addNode('fallback', DOCKER_ONLY);
        const made = await now.create(podOf('nginx:1', { nodeName: 'fallback' }));
        assert.deepEqual([imagesIn(made), now.asked, await now.count(why)], [['nginx:1'], [], 1]);
        assert.match(tellAstray(parseConfig(CONFIG).config, registry) ?? '', told);
      }
    });

  test('is told of for no image that its node mirrors by itself', async () => {
    const now = new Stage(CONFIG, { registry: { ...REGISTRY, rewriteTo: 'registry.k8s.io' } });
    now.cluster.addNode('fallback', DOCKER_ONLY);
    await now.bind(podOf('quay.io/app:1'), 'fallback');
    assert.deepEqual(now.cluster.told, []);
  });

  test('is nothing to a mirror that nodes ask by its own name', async () => {
    const now = new Stage(CONFIG, { registry: { ...REGISTRY, rewriteTo: 'quay.io' } });
    now.cluster.addNode('fallback', DOCKER_ONLY);
    assert.deepEqual(imagesIn(await now.bind(podOf('gcr.io/app:1'), 'fallback')), [
      'mirror.example/gcr/app:1',
    ]);
  });

  test('is none where it is the door, or any other host', () => {
    const { config } = parseConfig(CONFIG);
    for (const rewriteTo of ['127.0.0.1:5700', 'mirror.corp'])
      assert.equal(tellAstray(config, { ...REGISTRY, rewriteTo, door: '127.0.0.1:5700' }), undefined);
  });
});

suite('a Pod that is made', () => {
  const known: Readonly<Record<string, object>> = {
    'names its node': { nodeName: 'fallback' },
    'is of a DaemonSet': affinity([{ key: 'metadata.name', operator: 'In', values: ['fallback'] }]),
    'selects the name of a host': { nodeSelector: { 'kubernetes.io/hostname': 'fallback.host' } },
  };
  for (const [what, spec] of Object.entries(known))
    test(`is rewritten at once when it ${what}`, async () => {
      const made = await stage().create(podOf('nginx:1', { ...spec }));
      assert.deepEqual(imagesIn(made), ['127.0.0.1:5700/docker.io/library/nginx:1']);
      assert.deepEqual(originalsIn(made), { 'containers/app': 'nginx:1' });
    });

  const unknown: Readonly<Record<string, object>> = {
    'may go anywhere': {},
    'names another node': { nodeName: 'other' },
    'may go to two nodes': affinity([
      { key: 'metadata.name', operator: 'In', values: ['fallback', 'other'] },
    ]),
    'is kept from a node': affinity([{ key: 'metadata.name', operator: 'NotIn', values: ['fallback'] }]),
    'may go to one node, or to another': {
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: ['fallback', 'other'].map((name) => ({
              matchFields: [{ key: 'metadata.name', operator: 'In', values: [name] }],
            })),
          },
        },
      },
    },
    'selects the name of another host': { nodeSelector: { 'kubernetes.io/hostname': 'fallback' } },
  };
  for (const [what, spec] of Object.entries(unknown))
    test(`is left alone when it ${what}`, async () => {
      const stageNow = stage();
      assert.deepEqual(imagesIn(await stageNow.create(podOf('nginx:1', { ...spec }))), ['nginx:1']);
      assert.deepEqual(stageNow.asked, []);
    });

  test('is never sent to the registry a second time, although that is an upstream by its name', async () => {
    const stageNow = stage('upstreams: { "127.0.0.1:5700": {} }\nfallback: always\n');
    assert.deepEqual(imagesIn(await stageNow.create(podOf('127.0.0.1:5700/app:1'))), [
      '127.0.0.1:5700/app:1',
    ]);
  });

  test('has the mirror asked for what it will need if it comes to a node that cannot mirror', async () => {
    const stageNow = stage();
    await stageNow.create(podOf('nginx:1'));
    await stageNow.create(podOf('quay.io/app:1'));
    assert.deepEqual(stageNow.warmed, [
      { origin: 'http://weir.weir.svc:5000', repository: 'docker.io/library/nginx', reference: '1' },
    ]);
  });

  test('is rewritten in every part that names an image, and nowhere else', async () => {
    const pod = {
      metadata: { annotations: { other: 'nginx:1' } },
      spec: {
        nodeName: 'fallback',
        futureField: { image: 'kept' },
        initContainers: [
          { name: 'init', image: 'busybox:1', command: ['nginx:1'] },
          { name: 'other', image: 'ghcr.io/app:1' },
        ],
        containers: [
          {
            name: 'app',
            image: 'nginx:1',
            imagePullPolicy: 'Always',
            env: [{ name: 'A', value: 'nginx:1' }],
          },
          { name: 'never', image: 'nginx:1', imagePullPolicy: 'Never' },
          { name: 'quay', image: 'quay.io/app:1' },
        ],
        volumes: [
          { name: 'models', image: { reference: 'org/models:1', pullPolicy: 'IfNotPresent' } },
          { name: 'empty', emptyDir: {} },
        ],
      },
    };
    const stageNow = stage();
    const made = await stageNow.create(pod);
    const [init, other] = pod.spec.initContainers;
    const [app, ...others] = pod.spec.containers;
    const [models, empty] = pod.spec.volumes;
    const annotation = {
      'containers/app': 'nginx:1',
      'initContainers/init': 'busybox:1',
      'volumes/models': 'org/models:1',
    };
    assert.deepEqual(made, {
      metadata: { annotations: { other: 'nginx:1', 'weir.dev/original-images': JSON.stringify(annotation) } },
      spec: {
        ...pod.spec,
        initContainers: [{ ...init, image: '127.0.0.1:5700/docker.io/library/busybox:1' }, other],
        containers: [{ ...app, image: '127.0.0.1:5700/docker.io/library/nginx:1' }, ...others],
        volumes: [
          { ...models, image: { ...models?.image, reference: '127.0.0.1:5700/docker.io/org/models:1' } },
          empty,
        ],
      },
    });
  });

  test('is looked at again after others added to it', async () => {
    const stageNow = stage();
    const made = await stageNow.create(podOf('nginx:1', { nodeName: 'fallback' }));
    const containers = [...made.spec.containers, { name: 'sidecar', image: 'envoy:1' }];
    const again = await stageNow.create({ ...made, spec: { ...made.spec, containers } });
    assert.deepEqual(imagesIn(again), [
      '127.0.0.1:5700/docker.io/library/nginx:1',
      '127.0.0.1:5700/docker.io/library/envoy:1',
    ]);
    assert.deepEqual(originalsIn(again), { 'containers/app': 'nginx:1', 'containers/sidecar': 'envoy:1' });
  });

  test('is told of in the answer when it is left for a reason that somebody may want to know', async () => {
    const stageNow = stage();
    stageNow.found = () => 'absent';
    const object = podOf('nginx:1', { nodeName: 'fallback' });
    const { patch, warnings } = await stageNow.answer(request({ namespace: 'default', object }));
    assert.deepEqual(patch, []);
    assert.deepEqual(warnings, ['weir leaves nginx:1 as it is: the mirror has no such manifest']);
  });
});

suite('a Pod that is made while every Pod is rewritten', () => {
  const left: Readonly<Record<string, string>> = { crio: 'plain-http', bare: 'no-door', full: 'on-node' };
  for (const [node, why] of Object.entries(left))
    test(`keeps the name that its node can use alone: ${why}`, async () => {
      const now = always();
      const pod = podOf('quay.io/app:1', { nodeName: node });
      assert.deepEqual(imagesIn(await now.create(pod)), ['quay.io/app:1']);
      assert.equal(await now.count(why), 1);
    });

  test('has no container added to it under a name that its node cannot use', async () => {
    const now = always();
    const before = { metadata: { name: 'pod', uid: 'u' }, spec: { nodeName: 'crio' } };
    const ephemeralContainers = [{ name: 'debug', image: 'busybox:1' }];
    const object = { ...before, spec: { ...before.spec, ephemeralContainers } };
    const change = { operation: 'UPDATE', subResource: 'ephemeralcontainers', namespace: 'default', object };
    const { patch } = await now.answer(request({ ...change, oldObject: before }));
    assert.deepEqual(patch, []);
  });

  test('is rewritten for every upstream, although its node mirrors some by itself', async () => {
    for (const nodeName of ['fallback', 'other', undefined])
      assert.deepEqual(
        imagesIn(await always().create(podOf('quay.io/app:1', nodeName === undefined ? {} : { nodeName }))),
        ['127.0.0.1:5700/quay.io/app:1'],
      );
  });
});

suite('a Pod that is bound', () => {
  test('is rewritten for what its node cannot mirror', async () => {
    const pod = podOf('nginx:1', { initContainers: [{ name: 'init', image: 'quay.io/app:1' }] });
    const bound = await stage().bind(pod, 'fallback');
    assert.deepEqual(imagesIn(bound).toSorted(), [
      '127.0.0.1:5700/docker.io/library/nginx:1',
      'quay.io/app:1',
    ]);
    assert.deepEqual(originalsIn(bound), { 'containers/app': 'nginx:1' });
  });

  for (const state of [
    'unsupported',
    'unparsable',
    'failed',
    'bypassed',
    'configured',
    'overridden',
    'withdrawn',
  ])
    test(`is ${/unsu|unp|fai|byp/.test(state) ? 'rewritten' : 'left alone'} where its upstream is ${state}`, async () => {
      const stageNow = new Stage();
      stageNow.cluster.addNode('node', { 'docker.io': state, 'quay.io': 'failed' });
      const [image] = imagesIn(await stageNow.bind(podOf('nginx:1'), 'node'));
      assert.equal(image?.startsWith('127.0.0.1:5700/'), /unsu|unp|fai|byp/.test(state));
    });

  test('is not touched, nor the mirror asked, where its node mirrors by itself', async () => {
    const stageNow = stage();
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'other')), ['nginx:1']);
    assert.deepEqual([stageNow.asked, stageNow.cluster.patches], [[], []]);
  });

  test('gets its own names back on a node that mirrors by itself', async () => {
    const stageNow = stage();
    const once = await stageNow.bind(podOf('nginx:1'), 'fallback');
    const twice = await stageNow.bind(once, 'other');
    assert.deepEqual(imagesIn(twice), ['nginx:1']);
    assert.equal(originalsIn(twice), undefined);
    const third = await stageNow.bind(twice, 'fallback');
    assert.deepEqual(originalsIn(third), { 'containers/app': 'nginx:1' });
  });

  test('gets its own names back when the mirror has gone meanwhile', async () => {
    const stageNow = stage();
    const once = await stageNow.bind(podOf('nginx:1'), 'fallback');
    stageNow.found = () => 'down';
    assert.deepEqual(imagesIn(await stageNow.bind(once, 'fallback')), ['nginx:1']);
    assert.deepEqual(stageNow.cluster.told, [{ pod: 'pod', image: 'nginx:1', why: 'down' }]);
    assert.equal(await stageNow.count('down'), 1);
  });

  const edits: Readonly<Record<string, readonly [image: string, before: string, after: string]>> = {
    'its upstream is not one any more': ['nginx:1', CONFIG, CONFIG.replace('docker.io: {}', '')],
    'names lead elsewhere': ['nginx:1', `${CONFIG}rewriteTo: old.corp\n`, `${CONFIG}rewriteTo: new.corp\n`],
    'its mirror is another': [
      'gcr.io/a:1',
      CONFIG,
      CONFIG.replace('mirror.example/gcr', 'other.example/gcr'),
    ],
    'its mirror is none any more': ['gcr.io/a:1', CONFIG, CONFIG.replace(/mirror: https:.*via: node/, '')],
    'there were other edits': ['nginx:1', `${CONFIG}rewriteTo: old.corp\n`, CONFIG],
  };
  for (const [what, [image, before, after]] of Object.entries(edits))
    test(`gets its own names back after an edit meanwhile: ${what}`, async () => {
      const now = stage(before);
      const waiting = await now.bind(podOf(image), 'fallback');
      assert.notDeepEqual(imagesIn(waiting), [image]);
      for (let edit = 0; edit < 5; edit++) now.configure(`${CONFIG}# ${edit}\n`);
      now.configure(after);
      assert.deepEqual(imagesIn(await now.bind(waiting, 'other')), [image]);
    });

  test('keeps the name that it was made with, whatever was edited meanwhile, where every Pod is rewritten', async () => {
    const now = always();
    const waiting = await now.create(podOf('quay.io/app:1'));
    now.configure('upstreams: { ghcr.io: {} }\nfallback: always\n');
    assert.deepEqual(imagesIn(await now.bind(waiting, 'other')), ['127.0.0.1:5700/quay.io/app:1']);
  });

  test('gets its own names back after the webhook was started anew, and the door is another', async () => {
    const waiting = await stage().bind(podOf('nginx:1'), 'fallback');
    const now = new Stage(CONFIG, { registry: { ...REGISTRY, rewriteTo: '127.0.0.1:5800' } });
    assert.deepEqual(imagesIn(await now.bind(waiting, 'other')), ['nginx:1']);
  });

  const foreign: Readonly<Record<string, readonly [image: string, original: string]>> = {
    'of a registry that is none of ours': ['127.0.0.1:5700/evil.io/a:1', 'evil.io/a:1'],
    'under a host that is no mirror': ['allowed.corp/docker.io/library/nginx:1', 'nginx:1'],
    'of another tag': ['127.0.0.1:5700/docker.io/library/nginx:1', 'nginx:2'],
    'of another digest': [`127.0.0.1:5700/quay.io/a@${DIGEST}`, 'quay.io/a:1'],
    'of another upstream': ['127.0.0.1:5700/docker.io/library/nginx:1', 'quay.io/library/nginx:1'],
    'with more before it': ['127.0.0.1:5700/a/docker.io/library/nginx:1', 'nginx:1'],
    'in a mirror of another': ['mirror.example/gcr/a:1', 'a:1'],
  };
  for (const [what, [image, original]] of Object.entries(foreign))
    test(`gets no image by an annotation of its own making: ${what}`, async () => {
      const annotations = { 'weir.dev/original-images': JSON.stringify({ 'containers/app': original }) };
      const pod = { ...podOf(image), metadata: { annotations } };
      assert.deepEqual(imagesIn(await stage().bind(pod, 'other')), [image]);
    });

  test('gets no image that an annotation of its own making says', async () => {
    for (const original of ['evil:1', '127.0.0.1:5700/docker.io/library/nginx:1', 'ghcr.io/evil:1', '']) {
      const annotations = { 'weir.dev/original-images': JSON.stringify({ 'containers/app': original }) };
      const pod = { ...podOf('127.0.0.1:5700/docker.io/library/nginx:1'), metadata: { annotations } };
      const stageNow = stage();
      assert.deepEqual(imagesIn(await stageNow.bind(pod, 'other')), [
        '127.0.0.1:5700/docker.io/library/nginx:1',
      ]);
    }
    const broken = { ...podOf('nginx:1'), metadata: { annotations: { 'weir.dev/original-images': '[{' } } };
    assert.deepEqual(originalsIn(await stage().bind(broken, 'fallback')), { 'containers/app': 'nginx:1' });
  });

  test('keeps the image of a volume, which cannot be changed any more, and says so', async () => {
    const stageNow = stage();
    const pod = podOf('nginx:1', { volumes: [{ name: 'v', image: { reference: 'models:1' } }] });
    assert.deepEqual(imagesIn(await stageNow.bind(pod, 'fallback')).toSorted(), [
      '127.0.0.1:5700/docker.io/library/nginx:1',
      'models:1',
    ]);
    assert.deepEqual(stageNow.cluster.told, [{ pod: 'pod', image: 'models:1', why: 'volume' }]);
  });

  test('has no doubt told of the image of a volume that was rewritten when it was made', async () => {
    const volumes = [{ name: 'v', image: { reference: 'models:1' } }];
    const now = stage();
    const made = await now.create(podOf('quay.io/app:1', { nodeName: 'fallback', volumes }));
    const unbound = { ...made, spec: { ...made.spec, nodeName: undefined } };
    const images = ['127.0.0.1:5700/docker.io/library/models:1', 'quay.io/app:1'];
    assert.deepEqual(imagesIn(await now.bind(unbound, 'fallback')).toSorted(), images);
    assert.deepEqual(now.cluster.told, []);
    // Where that name leads nowhere, it cannot be changed any more.
    now.cluster.addNode('closed', DOCKER_ONLY, { door: 'closed' });
    assert.deepEqual(imagesIn(await now.bind(unbound, 'closed')).toSorted(), images);
    assert.deepEqual(now.cluster.told, [{ pod: 'pod', image: images[0], why: 'no-door' }]);
  });

  const left: Readonly<Record<string, (now: Stage) => unknown>> = {
    absent: (now) => (now.found = () => 'absent'),
    refused: (now) => (now.found = () => 'refused'),
    down: (now) => (now.found = () => 'down'),
    slow: (now) => (now.found = () => 'slow'),
    'plain-http': (now) => now.cluster.addNode('fallback', DOCKER_ONLY, { runtime: 'cri-o' }),
    'no-door': (now) => now.cluster.addNode('fallback', DOCKER_ONLY, { door: 'closed' }),
  };
  test('is left as it is, and somebody is told, where the agent was killed that has the door', async () => {
    const now = stage();
    now.cluster.deserted.add('fallback');
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
    assert.deepEqual(now.cluster.told, [{ pod: 'pod', image: 'nginx:1', why: 'no-door' }]);
    const elsewhere = 'quay.io/app:1';
    now.configure(`${CONFIG}rewriteTo: mirror.corp\n`);
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), [
      'mirror.corp/docker.io/library/nginx:1',
    ]);
    assert.deepEqual(imagesIn(await now.bind(podOf(elsewhere), 'fallback')), [elsewhere]);
  });

  for (const [why, arrange] of Object.entries(left))
    test(`is left as it is, and somebody is told: ${why}`, async () => {
      const stageNow = stage();
      arrange(stageNow);
      assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
      assert.deepEqual(stageNow.cluster.told, [{ pod: 'pod', image: 'nginx:1', why }]);
      assert.equal(await stageNow.count(why), 1);
    });

  test('goes by https to a host of its own where the loopback will not do', async () => {
    const registry = { ...REGISTRY, rewriteTo: 'mirror.corp' };
    const stageNow = new Stage(CONFIG, { registry });
    stageNow.cluster.addNode('crio', { 'quay.io': 'unsupported' }, { runtime: 'cri-o' });
    stageNow.cluster.addNode('bare', undefined);
    for (const node of ['crio', 'bare'])
      assert.deepEqual(imagesIn(await stageNow.bind(podOf('quay.io/a:1'), node)), [
        'mirror.corp/quay.io/a:1',
      ]);
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'crio')), ['nginx:1']);
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'bare')), [
      'mirror.corp/docker.io/library/nginx:1',
    ]);
  });

  test('is left alone when its image is there already, unless it is to be pulled always', async () => {
    const stageNow = new Stage();
    const images = ['docker.io/library/nginx:1', `docker.io/library/other@${DIGEST}`, '<none>@<none>', ''];
    stageNow.cluster.addNode('fallback', DOCKER_ONLY, { images });
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
    assert.deepEqual(imagesIn(await stageNow.bind(podOf(`other:7@${DIGEST}`), 'fallback')), [
      `other:7@${DIGEST}`,
    ]);
    for (const image of ['nginx:2', 'other:7'])
      assert.match(imagesIn(await stageNow.bind(podOf(image), 'fallback'))[0] ?? '', /^127/);
    const always = { containers: [{ name: 'app', image: 'nginx:1', imagePullPolicy: 'Always' }] };
    assert.match(imagesIn(await stageNow.bind({ spec: always }, 'fallback'))[0] ?? '', /^127/);
  });

  test('is not read from the API when it is remembered, and once when it is not', async () => {
    const remembering = stage();
    const [image] = imagesIn(await remembering.bind(podOf('nginx:1'), 'fallback', { isRemembered: true }));
    assert.match(image ?? '', /^127/);
    await remembering.bind(podOf('nginx:1'), 'other', { isRemembered: true });
    assert.equal(remembering.cluster.reads, 0);
    const forgetful = stage();
    await forgetful.bind(podOf('nginx:1'), 'fallback');
    assert.equal(forgetful.cluster.reads, 1);
  });

  test('is looked at once more when it is not as it was remembered, and is left when it changes again', async () => {
    const stageNow = stage();
    const metadata = { name: 'pod', namespace: 'default', uid: 'u' };
    stageNow.cluster.remembered.set('pod', { ...podOf('old:1'), metadata });
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'fallback')), [
      '127.0.0.1:5700/docker.io/library/nginx:1',
    ]);
    assert.equal(stageNow.cluster.reads, 1);

    const restless = stage();
    const tags = ['1', '2', '3'];
    restless.cluster.meanwhile = () =>
      restless.cluster.pods.set('pod', { ...podOf(`other:${tags.shift()}`), metadata });
    assert.deepEqual(imagesIn(await restless.bind(podOf('nginx:1'), 'fallback')), ['other:2']);
    assert.equal(await restless.count('changed'), 1);
  });

  test('is not patched once it is on a node, where that would start its containers anew', async () => {
    const stageNow = stage();
    stageNow.cluster.meanwhile = () => {
      const metadata = { name: 'pod', namespace: 'default', uid: 'u' };
      stageNow.cluster.pods.set('pod', { ...podOf('nginx:1', { nodeName: 'fallback' }), metadata });
    };
    assert.deepEqual(imagesIn(await stageNow.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
  });

  test('is not mistaken for another of the same name', async () => {
    const stageNow = stage();
    const pod = { ...podOf('nginx:1'), metadata: { uid: 'another' } };
    assert.deepEqual(imagesIn(await stageNow.bind(pod, 'fallback')), ['nginx:1']);
  });

  test('is only looked at in a dry run', async () => {
    const stageNow = stage();
    stageNow.found = (place) => (place.reference === '1' ? 'there' : 'absent');
    const pod = podOf('nginx:1', { initContainers: [{ name: 'init', image: 'nginx:2' }] });
    assert.deepEqual(imagesIn(await stageNow.bind(pod, 'fallback', { dryRun: true })).toSorted(), [
      'nginx:1',
      'nginx:2',
    ]);
    assert.deepEqual([stageNow.cluster.patches, stageNow.cluster.told], [[], []]);
  });
});

suite('a node', () => {
  const facts = { name: 'n', runtimeVersion: '', address: '', imageNames: [] };
  const node = (label: string | undefined, states: string) =>
    fallbackNode({
      ...facts,
      labels: label === undefined ? {} : { 'weir.dev/mirror': label },
      annotations: { 'weir.dev/upstreams': states },
    });

  const hasDoor = (label: object, annotations: Readonly<Record<string, string>>): boolean | undefined =>
    fallbackNode({
      ...facts,
      labels: { ...label },
      annotations: { 'weir.dev/upstreams': '{"a.io":"failed"}', ...annotations },
    })?.hasDoor;

  test('needs rewriting for what its agent says, and while it says that it does', () => {
    assert.deepEqual(
      node('fallback', '{"a.io":"failed","b.io":"configured","c.io":"bypassed"}')?.hosts,
      new Set(['a.io', 'c.io']),
    );
    for (const label of ['configured', 'off']) assert.equal(node(label, '{"a.io":"failed"}'), undefined);
    for (const states of ['', '{}', '[', '"failed"', '{"a.io":1}', '{"a.io":"configured"}'])
      assert.equal(node('fallback', states), undefined, states);
  });

  test('has a door only while its agent says that it is open', () => {
    const fallback = { 'weir.dev/mirror': 'fallback' };
    assert.equal(hasDoor(fallback, { 'weir.dev/door': 'open' }), true);
    for (const door of ['closed', 'Open', '', 'true'])
      assert.equal(hasDoor(fallback, { 'weir.dev/door': door }), false);
    assert.equal(hasDoor(fallback, {}), false, 'nobody says that it is');
    assert.equal(hasDoor({}, { 'weir.dev/door': 'open' }), false, 'the agent is gone');
  });

  test('is one of a few that stand for thousands, where images are asked for ahead', async () => {
    const states = ['{"a.io":"failed","b.io":"failed"}', '{"b.io":"bypassed","a.io":"unsupported"}'];
    const many = Array.from({ length: 3_000 }, (_, at) => {
      const made = node(at % 3 === 0 ? undefined : 'fallback', states[at % 2] ?? '');
      return made === undefined ? [] : [{ ...made, name: `n${at}`, images: new Set(['a.io/a:1']) }];
    });
    const needs = distinctNeeds(many.flat());
    assert.deepEqual(
      needs.map(({ hosts, images }) => [hosts, images]),
      [
        ['all', new Set()],
        [new Set(['b.io', 'a.io']), new Set()],
      ],
    );
    const now = new Stage();
    for (const name of ['first', 'second'])
      now.cluster.addNode(name, DOCKER_ONLY, { images: ['docker.io/library/nginx:1'] });
    now.cluster.addNode('crio', { 'quay.io': 'failed' }, { runtime: 'cri-o' });
    await now.create(podOf('nginx:1', { initContainers: [{ name: 'i', image: 'quay.io/app:1' }] }));
    assert.deepEqual(
      now.warmed.map(({ repository }) => repository),
      ['docker.io/library/nginx'],
      'one question, and none for a node that could not use the answer',
    );
  });

  test('needs no door where names lead elsewhere', async () => {
    const now = new Stage(CONFIG, { registry: { ...REGISTRY, rewriteTo: 'mirror.corp' } });
    now.cluster.addNode('fallback', DOCKER_ONLY, { door: 'closed' });
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), [
      'mirror.corp/docker.io/library/nginx:1',
    ]);
  });

  test('needs rewriting for everything when nobody looks after it', () => {
    assert.equal(node(undefined, '{"a.io":"configured"}')?.hosts, 'all');
  });
});

suite('containers that are added to a Pod that runs', () => {
  test('are rewritten, and no others', async () => {
    const before = {
      metadata: { uid: 'u' },
      spec: {
        nodeName: 'fallback',
        containers: [{ name: 'app', image: 'nginx:1' }],
        ephemeralContainers: [{ name: 'first', image: 'busybox:1' }],
      },
    };
    const debug = [...before.spec.ephemeralContainers, { name: 'second', image: 'busybox:2' }];
    const object = { ...before, spec: { ...before.spec, ephemeralContainers: debug } };
    const change = { operation: 'UPDATE', subResource: 'ephemeralcontainers', namespace: 'default', object };
    const { patch } = await stage().answer(request({ ...change, oldObject: before }));
    assert.deepEqual(patch, [
      { op: 'test', path: '/metadata/uid', value: 'u' },
      { op: 'test', path: '/spec/ephemeralContainers/1/image', value: 'busybox:2' },
      {
        op: 'replace',
        path: '/spec/ephemeralContainers/1/image',
        value: '127.0.0.1:5700/docker.io/library/busybox:2',
      },
    ]);
  });
});

test('a container is added once under the name of a mirror, although the host of that is an upstream too', async () => {
  const now = new Stage(
    'upstreams: { docker.io: { mirror: https://quay.io/hub, via: node }, quay.io: {} }\n',
  );
  now.cluster.addNode('fallback', { 'docker.io': 'failed', 'quay.io': 'failed' });
  const metadata = { name: 'pod', uid: 'u' };
  const added = async (image: string): Promise<string[]> => {
    const ephemeralContainers = [{ name: 'debug', image }];
    const object = { metadata, spec: { nodeName: 'fallback', ephemeralContainers } };
    const oldObject = { metadata, spec: {} };
    const change = { operation: 'UPDATE', subResource: 'ephemeralcontainers', namespace: 'default' };
    const { patch = [] } = await now.answer(request({ ...change, object, oldObject }));
    return patch.flatMap((step) =>
      'op' in step && step.op === 'replace' && 'value' in step ? [String(step.value)] : [],
    );
  };
  // As when the API server asks once more, after others changed the Pod too.
  for (const image of ['busybox:1', 'quay.io/hub/library/busybox:1'])
    assert.deepEqual(await added(image), image === 'busybox:1' ? ['quay.io/hub/library/busybox:1'] : []);
  assert.deepEqual(await added('quay.io/hubs/app:1'), ['127.0.0.1:5700/quay.io/hubs/app:1']);
});

suite("a Pod is none of the webhook's business", () => {
  const exempt: Readonly<
    Record<string, [config: string, metadata: Record<string, unknown>, namespace?: string]>
  > = {
    disabled: ['enabled: false', {}],
    never: ['fallback: never', {}],
    namespace: ['includeNamespaces: ["team-*"]', {}],
    'namespace, which leaving out decides': ['excludeNamespaces: ["de?ault"]', {}],
    'namespace of the cluster itself': ['', {}, 'kube-system'],
    own: ['', {}, 'weir'],
    'own by its label': ['', { labels: { 'app.kubernetes.io/part-of': 'weir' } }],
    'opt-out': ['', { annotations: { 'weir.dev/rewrite': 'false' } }],
    'opt-out of its namespace': ['', {}, 'left-alone'],
    static: ['', { annotations: { 'kubernetes.io/config.mirror': 'x' } }],
    'static by its source': ['', { annotations: { 'kubernetes.io/config.source': 'file' } }],
    owner: ['', { ownerReferences: [{ apiVersion: 'postgresql.cnpg.io/v1', kind: 'Cluster' }] }],
    'owner of its StatefulSet, by its label': [
      '',
      {
        labels: { 'aerospike.com/cr': 'db' },
        ownerReferences: [{ apiVersion: 'apps/v1', kind: 'StatefulSet' }],
      },
    ],
    'owner of every kind of a group': [
      'skipOwners: ["*.example.com"]',
      { ownerReferences: [{ apiVersion: 'example.com/v1', kind: 'A' }] },
    ],
    'owner of no group': ['skipOwners: [Node]', { ownerReferences: [{ apiVersion: 'v1', kind: 'Node' }] }],
  };
  for (const [what, [lines, metadata, namespace = 'default']] of Object.entries(exempt))
    test(`by: ${what}`, async () => {
      for (const mode of lines.startsWith('fallback') ? [''] : ['fallback: auto\n', 'fallback: always\n']) {
        const stageNow = stage(`${CONFIG}${mode}${lines}\n`);
        stageNow.cluster.optedOut.add('left-alone');
        const pod = { metadata, spec: podOf('nginx:1', { nodeName: 'fallback' }).spec };
        assert.deepEqual(imagesIn(await stageNow.create(pod, namespace)), ['nginx:1']);
        assert.deepEqual(
          imagesIn(await stageNow.bind({ ...podOf('nginx:1'), metadata }, 'fallback', { namespace })),
          ['nginx:1'],
        );
        assert.deepEqual(stageNow.asked, []);
      }
    });

  test('but an owner that is not skipped is known by no label', async () => {
    const now = stage(`${CONFIG}skipOwners: [A.b.c]\n`);
    const pod = { ...podOf('nginx:1'), metadata: { labels: { 'aerospike.com/cr': 'db' } } };
    assert.match(imagesIn(await now.bind(pod, 'fallback'))[0] ?? '', /^127/);
  });

  test('but a namespace that is not left out is looked at, and Pods of another owner are', async () => {
    const stageNow = stage(
      `${CONFIG}includeNamespaces: ["team-*"]\nexcludeNamespaces: [team-b]\nskipOwners: [A.b.c]\n`,
    );
    const metadata = {
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet' }],
      annotations: { 'weir.dev/rewrite': 'true' },
    };
    const pod = { metadata, spec: podOf('nginx:1', { nodeName: 'fallback' }).spec };
    assert.match(imagesIn(await stageNow.create(pod, 'team-a'))[0] ?? '', /^127/);
    assert.deepEqual(imagesIn(await stageNow.create(pod, 'team-b')), ['nginx:1']);
  });

  test('and whoever has it left alone by its owner is told, where it would have needed the mirror', async () => {
    const metadata = { ownerReferences: [{ apiVersion: 'postgresql.cnpg.io/v1', kind: 'Cluster' }] };
    const stageNow = stage();
    await stageNow.bind({ ...podOf('quay.io/postgres:1'), metadata }, 'fallback');
    await stageNow.bind({ ...podOf('postgres:1'), metadata }, 'other');
    assert.deepEqual(stageNow.cluster.told, []);
    await stageNow.bind({ ...podOf('postgres:1'), metadata }, 'fallback');
    assert.deepEqual(stageNow.cluster.told, [{ pod: 'pod', image: 'postgres:1', why: 'owner' }]);
  });
});

suite('an answer', () => {
  test('follows the configuration', async () => {
    const stageNow = stage();
    const pod = podOf('nginx:1', { nodeName: 'fallback' });
    stageNow.configure('upstreams: { quay.io: {} }');
    assert.deepEqual(imagesIn(await stageNow.create(pod)), ['nginx:1']);
    stageNow.configure(CONFIG);
    assert.match(imagesIn(await stageNow.create(pod))[0] ?? '', /^127/);
  });
});

function shown(name: string): string {
  return name.length < 80 ? name : `${name.slice(0, 60)}… (${name.length})`;
}

function bound(stageNow: Stage) {
  return { create: (pod: ReturnType<typeof podOf>) => stageNow.create(pod) };
}

function affinity(matchFields: readonly object[]): object {
  const nodeSelectorTerms = [{ matchFields }];
  return {
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } } },
  };
}
