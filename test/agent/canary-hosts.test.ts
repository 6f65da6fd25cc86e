import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { applyOnce, startAgent } from '../../agent/agent.ts';
import type { HostState } from '../../agent/change.ts';
import { bodyOf, configOf, filesOf, MIRROR, makeNode, NOTE, type NodeFiles } from './node-files.ts';

suite("the canary's file", () => {
  const DOCKER = 'upstreams: { docker.io: {} }';

  test('names the mirror alone, and nothing of a default', async (t) => {
    const node = await makeNode(t);
    await node.put({
      '_default/hosts.toml':
        'server = "https://all.corp"\n[host."https://a.corp"]\ncapabilities = ["pull"]\n',
      '_default/ca.crt': '',
    });
    assert.deepEqual(await apply(node, DOCKER), ['written docker.io', 'written canary.weir.internal']);
    assert.equal(
      bodyOf(await node.read('canary.weir.internal/hosts.toml')),
      `${NOTE}
server = "${MIRROR}"

[host."${MIRROR}"]
capabilities = [ "pull", "resolve" ]
dial_timeout = "3s"
`,
    );
    assert.deepEqual(await apply(node, DOCKER), []);
  });

  test('is there as long as an upstream has one', async (t) => {
    const node = await makeNode(t);
    const before = await node.snapshot();
    assert.deepEqual(await apply(node, 'upstreams: {}'), []);
    assert.deepEqual(await apply(node, 'upstreams: { quay.io: {} }'), [
      'written quay.io',
      'written canary.weir.internal',
    ]);
    assert.doesNotMatch(await node.read('canary.weir.internal/hosts.toml'), /https:/);
    for (const yaml of [`enabled: false\n${DOCKER}`, 'upstreams: {}']) {
      await apply(node, DOCKER);
      const removed = await apply(node, yaml);
      assert.deepEqual(removed.toSorted(), ['removed canary.weir.internal', 'removed docker.io']);
      assert.deepEqual(await node.snapshot(), before);
    }
    await apply(node, DOCKER);
    assert.deepEqual(await apply(node, DOCKER, false), ['removed canary.weir.internal']);
    await apply(node, DOCKER);
    assert.equal((await node.rollback()).includes('removed canary.weir.internal'), true);
    assert.deepEqual(await node.snapshot(), before);
  });

  test('is no upstream to the agent, which tells of it apart', async (t) => {
    const node = await makeNode(t);
    const edited = Promise.withResolvers<HostState | undefined>();
    const looks: [HostState['kind'] | undefined, boolean][] = [];
    const config = configOf(DOCKER);
    let left = 0;
    let looked = Promise.withResolvers<void>();
    const agent = startAgent({
      ...filesOf(node),
      mirror: MIRROR,
      source: { current: config, subscribe: () => () => undefined },
      onChange: ({ kind }) => {
        left += kind === 'left' ? 1 : 0;
      },
      onCanary: (state, isChanged) => {
        looks.push([state?.kind, isChanged]);
        looked.resolve();
        if (state?.kind === 'overridden') edited.resolve(state);
      },
    });
    node.atEnd(() => agent.close());
    await Promise.all([agent.ready, agent.watching]);
    assert.deepEqual([...agent.states().keys()], ['docker.io']);
    assert.deepEqual(looks[0], ['configured', true]);
    await node.put({
      'canary.weir.internal/hosts.toml': `${await node.read('canary.weir.internal/hosts.toml')}# mine\n`,
    });
    const state = await edited.promise;
    assert.match(state !== undefined && 'reason' in state ? state.reason : '', /was edited by hand/);
    assert.deepEqual([...agent.states()], [['docker.io', { kind: 'configured' }]]);
    assert.deepEqual(looks.at(-1), ['overridden', false]);
    looked = Promise.withResolvers();
    await node.put({ 'example.com/hosts.toml': '' });
    await looked.promise;
    assert.equal(left, 1, 'what is left alone is told once');
  });
});

/** What was done, as `written docker.io`. */
async function apply(node: NodeFiles, yaml: string, canary = true): Promise<readonly string[]> {
  const changes = await applyOnce({ ...node, mirror: MIRROR, config: configOf(yaml), canary });
  return changes.map(({ kind, host }) => `${kind} ${host}`);
}
