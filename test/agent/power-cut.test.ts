// The power goes before the n-th operation that changes a disk, for every n: whatever was done until then is there
// when weir starts again, and from there both ways have to lead to their end.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { cutBefore } from './cut-power.ts';
import { makeNode, type NodeFiles } from './node-files.ts';

const CONFIG = "upstreams: { docker.io: {}, 'harbor.corp:8443': {}, quay.io: {} }";
const OTHER = 'upstreams: { docker.io: { direct: false }, ghcr.io: {} }';
const BEFORE = {
  'docker.io/hosts.toml': '# by hand\n[host."https://a.corp"]\n',
  'harbor.corp:8443/hosts.toml': '-> ../linked.toml',
  'harbor.corp:8443/ca.crt': 'x',
  'linked.toml': 'skip_verify = true\n',
};

async function everyCut(
  t: TestContext,
  prepare: (node: NodeFiles) => Promise<void>,
  run: (node: NodeFiles) => Promise<unknown>,
  check: (node: NodeFiles) => Promise<void>,
): Promise<number> {
  for (let count = 0; ; count += 1) {
    const node = await makeNode(t);
    await node.put(BEFORE);
    await prepare(node);
    const isCut = await cutBefore(t, count, () => run(node));
    await check(node);
    if (!isCut) return count;
  }
}

/** Everything below the certificates directory when all went well. */
async function expected(
  t: TestContext,
  ...configs: readonly string[]
): Promise<Readonly<Record<string, string>>> {
  const node = await makeNode(t);
  await node.put(BEFORE);
  for (const config of configs) await node.apply(config);
  return node.snapshot();
}

test('cut off at any point, the next run ends where this one would have', async (t) => {
  const done = await expected(t, CONFIG);
  const cuts = await everyCut(
    t,
    async () => {},
    (node) => node.apply(CONFIG),
    async (node) => {
      await node.apply(CONFIG);
      assert.deepEqual(await node.snapshot(), done);
    },
  );
  assert.ok(cuts > 30, `${cuts} operations`);
});

test('cut off at any point, rollback brings everything back', async (t) => {
  const before = await expected(t);
  await everyCut(
    t,
    async () => {},
    (node) => node.apply(CONFIG),
    async (node) => {
      await node.rollback();
      assert.deepEqual(await node.snapshot(), before);
    },
  );
});

test('cut off while the configuration changes, both ways still lead to their end', async (t) => {
  const before = await expected(t);
  const done = await expected(t, CONFIG, OTHER);
  for (const goOn of [true, false])
    await everyCut(
      t,
      async (node) => {
        await node.apply(CONFIG);
      },
      (node) => node.apply(OTHER),
      async (node) => {
        if (goOn) await node.apply(OTHER);
        else await node.rollback();
        assert.deepEqual(await node.snapshot(), goOn ? done : before);
      },
    );
});

test('cut off in a rollback, the next one ends it, and files are whole at any time', async (t) => {
  const before = await expected(t);
  const done = await expected(t, CONFIG);
  await everyCut(
    t,
    async (node) => {
      await node.apply(CONFIG);
    },
    (node) => node.rollback(),
    async (node) => {
      // What is aside is nobody's yet, or any more.
      for (const [path, entry] of Object.entries(await node.snapshot()))
        if (path.endsWith('hosts.toml') && !path.includes('.aside/'))
          assert.ok(entry === before[path] || entry === done[path], path);
      await node.rollback();
      assert.deepEqual(await node.snapshot(), before);
    },
  );
});
