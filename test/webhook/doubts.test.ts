import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { Doubt } from '../../webhook/doubt.ts';
import { CONFIG, imagesIn, type Pod, podOf, request, Stage } from './stage.ts';

const OWNER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web-1', uid: 'o', controller: true };
const REWRITTEN = '127.0.0.1:5700/docker.io/library/nginx:1';

/** With a node that cannot mirror Docker Hub. */
function stage(budgetMs?: number): Stage {
  const made = new Stage(CONFIG, budgetMs === undefined ? {} : { budgetMs });
  made.cluster.addNode('fallback', { 'docker.io': 'unsupported' });
  return made;
}

function creation(more: object = {}) {
  const object: Pod = { ...podOf('nginx:1', { nodeName: 'fallback' }), ...more };
  return request({ namespace: 'default', object });
}

function debugging(image = 'busybox:1') {
  const metadata = { name: 'pod', namespace: 'default', uid: 'u' };
  const oldObject = { metadata, spec: { nodeName: 'fallback' } };
  const ephemeralContainers = [{ name: 'debug', image }];
  const object = { metadata, spec: { nodeName: 'fallback', ephemeralContainers } };
  const subResource = 'ephemeralcontainers';
  return request({ operation: 'UPDATE', subResource, namespace: 'default', object, oldObject });
}

suite('a Pod that passes as it is for a doubt', () => {
  /** What becomes of it at its binding, and what is told of all its images. */
  const whole: Readonly<Record<string, { arrange: (now: Stage) => unknown; told: Doubt }>> = {
    'the API server refuses its patch': {
      arrange: (now) =>
        (now.cluster.meanwhile = () => {
          throw new Error('the API server answers 403: only listed mirrors');
        }),
      told: { why: 'failed', more: 'the API server answers 403: only listed mirrors' },
    },
    'it cannot be read': {
      arrange: (now) => now.cluster.remembered.set('pod', { metadata: { uid: 'u' } }),
      told: { why: 'failed' },
    },
    'it changes again and again': {
      arrange: (now) => {
        let tag = 1;
        now.cluster.meanwhile = () =>
          now.cluster.pods.set('pod', { ...podOf(`nginx:${++tag}`), metadata: { name: 'pod', uid: 'u' } });
      },
      told: { why: 'changed' },
    },
    'the cluster is not known yet': {
      arrange: (now) => (now.cluster.isKnown = false),
      told: { why: 'starting' },
    },
  };
  for (const [what, { arrange, told }] of Object.entries(whole))
    test(`is told of and counted when ${what}`, async () => {
      const now = stage();
      arrange(now);
      const [image = ''] = imagesIn(await now.bind(podOf('nginx:1'), 'fallback'));
      assert.match(image, /^nginx:/);
      const [event] = now.cluster.told;
      assert.deepEqual({ ...event, more: told.more }, { more: undefined, ...told, pod: 'pod' });
      assert.equal(now.cluster.told.length, 1);
      assert.equal(await now.count(told.why), 1);
    });

  test('is told of and counted once when there is no time left, whatever comes of it later', async () => {
    const now = stage(20);
    const late = Promise.withResolvers<'there'>();
    now.found = () => late.promise;
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
    assert.deepEqual(now.cluster.told, [{ pod: 'pod', why: 'deadline' }]);
    const decided = now.line(/decided after the answer|passes as it is/);
    now.cluster.meanwhile = () => {
      throw new Error('the API server is away');
    };
    late.resolve('there');
    await decided;
    assert.deepEqual(await now.counted(), { deadline: 1 });
    assert.equal(now.cluster.told.length, 1);
  });

  test('has a patch logged that fails after its time', async () => {
    const now = stage(20);
    const late = Promise.withResolvers<void>();
    now.cluster.meanwhile = async () => {
      await late.promise;
      throw new Error('the API server is away');
    };
    await now.bind(podOf('nginx:1'), 'fallback');
    const logged = now.line(/a Pod passes as it is.*|the API server is away/);
    late.resolve();
    assert.match(await logged, /the API server is away/);
    assert.deepEqual(await now.counted(), { deadline: 1 });
  });

  test('is counted, and nobody told, when it is gone, or another has its name', async () => {
    const now = stage();
    await now.bind({ ...podOf('nginx:1'), metadata: { uid: 'another' } }, 'fallback');
    const binding = { metadata: { name: 'gone', uid: 'u' }, target: { name: 'fallback' } };
    await now.answer(request({ subResource: 'binding', namespace: 'default', object: binding }));
    assert.equal(await now.count('gone'), 2);
    assert.deepEqual(now.cluster.told, []);
  });

  test('is told of under its id, where the binding does not say it', async () => {
    const now = stage();
    now.found = () => 'absent';
    const ids: string[] = [];
    now.cluster.tell = ({ uid }) => ids.push(uid);
    now.cluster.pods.set('pod', { ...podOf('nginx:1'), metadata: { name: 'pod', uid: 'known' } });
    const binding = { metadata: { name: 'pod' }, target: { name: 'fallback' } };
    await now.answer(request({ subResource: 'binding', namespace: 'default', object: binding }));
    assert.deepEqual(ids, ['known']);
  });

  test('is told of under its controller while it is only being made', async () => {
    const now = stage();
    now.found = () => 'absent';
    const ownerReferences = [{ ...OWNER, name: 'other', controller: false }, OWNER];
    const { warnings } = await now.answer(creation({ metadata: { ownerReferences } }));
    assert.deepEqual(warnings, ['weir leaves nginx:1 as it is: the mirror has no such manifest']);
    assert.deepEqual(now.cluster.told, [{ owner: 'web-1', image: 'nginx:1', why: 'absent' }]);
    await now.answer({ ...creation({ metadata: { ownerReferences } }), dryRun: true });
    assert.equal(now.cluster.told.length, 1, 'and not in a dry run');
  });

  test('is told of in the answer alone when nobody but its maker is there to be told', async () => {
    const now = stage();
    now.found = () => 'down';
    const { warnings } = await now.answer(creation());
    assert.deepEqual(warnings, [
      'weir leaves nginx:1 as it is: the mirror cannot be asked for that manifest',
    ]);
    assert.deepEqual(now.cluster.told, []);
    assert.equal(await now.count('down'), 1);
  });

  test('is told of when a container is added to it', async () => {
    const now = stage();
    now.found = () => 'refused';
    await now.answer(debugging());
    assert.deepEqual(now.cluster.told, [{ pod: 'pod', image: 'busybox:1', why: 'refused' }]);
  });

  test('is told of when a name would be too long in the mirror', async () => {
    const now = stage();
    const long = `a/${'b'.repeat(250)}`;
    assert.deepEqual(imagesIn(await now.bind(podOf(long), 'fallback')), [long]);
    assert.deepEqual(now.cluster.told, [{ pod: 'pod', image: long, why: 'too-long' }]);
  });

  test('passes at its making too, when its time is over or something fails', async () => {
    const now = stage(20);
    now.found = () => Promise.reject(new Error('broken'));
    assert.deepEqual(await now.answer(creation({ metadata: { ownerReferences: [OWNER] } })), {});
    const late = Promise.withResolvers<'there'>();
    now.found = () => late.promise;
    assert.deepEqual(await now.answer(creation({ metadata: { ownerReferences: [OWNER] } })), {});
    late.resolve('there');
    assert.deepEqual(now.cluster.told, [
      { owner: 'web-1', why: 'failed', more: 'broken' },
      { owner: 'web-1', why: 'deadline' },
    ]);
    assert.deepEqual(await now.counted(), { failed: 1, deadline: 1 });
  });

  test('is rewritten again when the doubt is gone', async () => {
    const now = stage();
    now.found = () => 'down';
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), ['nginx:1']);
    now.found = () => 'there';
    assert.deepEqual(imagesIn(await now.bind(podOf('nginx:1'), 'fallback')), [REWRITTEN]);
  });
});
