import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Agent, type ConfigFeed, startAgent } from '../../agent/agent.ts';
import type { Change } from '../../agent/change.ts';
import type { Config } from '../../config/config.ts';
import { configOf, filesOf, MIRROR, makeNode, type NodeFiles } from './node-files.ts';

class Feed implements ConfigFeed {
  #current: Config;
  readonly #events = new EventEmitter();

  constructor(yaml: string) {
    this.#current = configOf(yaml);
  }

  get current(): Config {
    return this.#current;
  }

  get listeners(): number {
    return this.#events.listenerCount('change');
  }

  set(yaml: string): void {
    this.#current = configOf(yaml);
    this.#events.emit('change', this.#current);
  }

  subscribe(listener: (config: Config) => void): () => void {
    this.#events.on('change', listener);
    return () => this.#events.off('change', listener);
  }
}

interface Running {
  readonly agent: Agent;
  readonly feed: Feed;
  readonly changes: Change[];
  /** Waits until this was done. */
  readonly until: (change: string) => Promise<Change>;
}

function run(node: NodeFiles, yaml: string): Running {
  const feed = new Feed(yaml);
  const events = new EventEmitter();
  const changes: Change[] = [];
  const agent = startAgent({
    ...filesOf(node),
    mirror: MIRROR,
    source: feed,
    onChange: (change) => {
      changes.push(change);
      events.emit('change', change);
    },
  });
  node.atEnd(() => agent.close());
  return {
    agent,
    feed,
    changes,
    until: async (text) => {
      const signal = AbortSignal.timeout(10_000);
      for (;;) {
        const there = changes.find((change) => `${change.kind} ${change.host}` === text);
        if (there !== undefined) return there;
        await once(events, 'change', { signal });
      }
    },
  };
}

const TWO = 'upstreams: { docker.io: {}, quay.io: {} }';

test('the agent configures the node at its start, follows each edit, and leaves the files at its end', async (t) => {
  const node = await makeNode(t);
  const { agent, feed, until } = run(node, TWO);
  await agent.ready;
  assert.deepEqual(
    [...agent.states()],
    [
      ['docker.io', { kind: 'configured' }],
      ['quay.io', { kind: 'configured' }],
    ],
  );
  feed.set('upstreams: { docker.io: {}, ghcr.io: {} }');
  await until('written ghcr.io');
  await until('removed quay.io');
  assert.deepEqual([...agent.states().keys()], ['docker.io', 'ghcr.io']);
  const before = await node.snapshot();
  await agent.close();
  assert.equal(feed.listeners, 0);
  assert.deepEqual(await node.snapshot(), before);
});

test('switched off, the node goes back to what it was, and on again it is configured', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/hosts.toml': '# mine\n[host.a]\n' });
  const before = await node.snapshot();
  const { agent, feed, until, changes } = run(node, TWO);
  await agent.ready;
  feed.set(`enabled: false\n${TWO}`);
  await until('restored docker.io');
  await until('removed quay.io');
  assert.deepEqual(await node.snapshot(), before);
  assert.equal(agent.states().size, 0);
  changes.length = 0;
  feed.set(TWO);
  await until('written quay.io');
});

for (const [damage, harm] of [
  ['is deleted', (path: string) => rm(path)],
  ['is emptied', (path: string) => truncate(path, 0)],
  ['is cut short', (path: string) => truncate(path, 200)],
  ['goes with its directory', (path: string) => rm(join(path, '..'), { recursive: true })],
  ['goes with the certificates directory', (path: string) => rm(join(path, '../..'), { recursive: true })],
] as const)
  test(`a file that ${damage} is back within a second, and nothing more is written`, async (t) => {
    const node = await makeNode(t);
    const { agent, until, changes } = run(node, TWO);
    await agent.ready;
    await agent.watching;
    const before = await node.snapshot();
    changes.length = 0;
    const start = performance.now();
    await harm(join(node.certsDir, 'docker.io/hosts.toml'));
    await until('healed docker.io');
    assert.ok(performance.now() - start < 1000, `${performance.now() - start} ms`);
    await agent.close();
    assert.deepEqual(await node.snapshot(), before);
    assert.ok(changes.length <= 2, JSON.stringify(changes));
  });

test('an edited file is reported once, and its state says why', async (t) => {
  const node = await makeNode(t);
  const { agent, feed, until, changes } = run(node, TWO);
  await agent.ready;
  await agent.watching;
  await node.put({ 'docker.io/hosts.toml': `${await node.read('docker.io/hosts.toml')}# mine\n` });
  const { reason } = await until('left docker.io');
  assert.deepEqual(agent.states().get('docker.io'), { kind: 'overridden', reason });
  feed.set('upstreams: { docker.io: { direct: false }, ghcr.io: {} }');
  await until('written ghcr.io');
  assert.equal(changes.filter(({ kind }) => kind === 'left').length, 1);
});

test('a file that k3s writes while the agent runs is left alone, and the next one is ours once that is gone', async (t) => {
  const node = await makeNode(t);
  const { agent, until, changes } = run(node, TWO);
  await agent.ready;
  await agent.watching;
  const generated = '# File generated by k3s. DO NOT EDIT.\nserver = "https://registry-1.docker.io"\n';
  await node.put({ 'docker.io/hosts.toml': generated });
  const { reason = '' } = await until('left docker.io');
  assert.match(reason, /docker\.io\/hosts\.toml is written by k3s, from registries\.yaml/);
  assert.deepEqual(agent.states().get('docker.io'), {
    kind: 'unsupported',
    reason,
    code: 'generated-file',
  });
  assert.equal(await node.read('docker.io/hosts.toml'), generated);
  changes.length = 0;
  await rm(join(node.certsDir, 'docker.io'), { recursive: true });
  await until('healed docker.io');
});

test('a certificate that is taken away goes out of the file that had to name it', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/corp.crt': '', '_default/all.crt': '' });
  const { agent, until, changes } = run(node, TWO);
  await agent.ready;
  await agent.watching;
  assert.match(await node.read('docker.io/hosts.toml'), /ca = \[ "corp\.crt" \]/);
  assert.match(await node.read('quay.io/hosts.toml'), /ca = \[ "\.\.\/_default\/all\.crt" \]/);
  changes.length = 0;
  await rm(join(node.certsDir, 'docker.io/corp.crt'));
  await rm(join(node.certsDir, '_default/all.crt'));
  await until('written docker.io');
  await until('written quay.io');
  assert.doesNotMatch(await node.read('docker.io/hosts.toml'), /crt/);
  assert.doesNotMatch(await node.read('quay.io/hosts.toml'), /crt/);
});

test('a host that fails stops no other, says why, and is configured once it can be', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io': 'in the way' });
  const { agent, until } = run(node, TWO);
  await agent.ready;
  await agent.watching;
  const state = agent.states().get('docker.io');
  assert.ok(state?.kind === 'failed');
  assert.match(state.reason, /docker\.io is no directory\. Move it away\./);
  assert.deepEqual(agent.states().get('quay.io'), { kind: 'configured' });
  await rm(join(node.certsDir, 'docker.io'));
  await until('written docker.io');
  assert.deepEqual(agent.states().get('docker.io'), { kind: 'configured' });
});

test('a FIFO among the files does not hold up the agent', async (t) => {
  const node = await makeNode(t);
  await node.put({ 'docker.io/': '' });
  execFileSync('mkfifo', [join(node.certsDir, 'docker.io/hosts.toml')]);
  const { agent } = run(node, TWO);
  await agent.ready;
  await agent.watching;
  assert.equal(agent.states().get('docker.io')?.kind, 'failed');
  assert.equal(agent.states().get('quay.io')?.kind, 'configured');
});

test('an agent that is closed at once writes nothing any more', async (t) => {
  const node = await makeNode(t);
  const { agent } = run(node, TWO);
  await agent.close();
  const before = await node.snapshot();
  await agent.ready;
  assert.deepEqual(await node.snapshot(), before);
  await assert.rejects(stat(join(node.certsDir, 'quay.io')), { code: 'ENOENT' });
});

test('an agent is not started for an address that no node could ask', async (t) => {
  const node = await makeNode(t);
  assert.throws(
    () => startAgent({ ...filesOf(node), mirror: '127.0.0.1:5000', source: new Feed(TWO) }),
    /is no address of a mirror/,
  );
});
