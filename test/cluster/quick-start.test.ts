// The README's quick start, word by word, as somebody follows it who has never seen weir.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { buildImage } from '../image/image.ts';
import type { Cluster } from './cluster.ts';
import { readLayout, withAuthority } from './image.ts';
import { eventually } from './patience.ts';
import { startCluster } from './start-cluster.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const REGISTRY = 'ghcr.io/acme';
/** What somebody does in the editor. */
const EDIT = String.raw`sed -i 's#^\( *\)quay.io: {}#&\n\1registry.corp.example: {}#'`;

suite("the README's way into a cluster", { concurrency: false }, () => {
  let cluster: Cluster;
  let commands: readonly string[];

  before(async () => {
    cluster = await startCluster();
    const image = await withAuthority(await readLayout(await buildImage()), cluster.ca);
    await cluster.pushImage(`${REGISTRY}/weir:${manifest.version}`, image);
    const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
    const [, block = ''] = /## Use it in a cluster\n.*?```console\n(.*?)```/s.exec(readme) ?? [];
    commands = block.trim().split('\n');
  });
  after(() => cluster.stop());

  const follow = (part: string): Promise<string> => {
    const command = commands.find((line) => line.includes(part));
    assert.ok(command !== undefined, `the README says how to ${part}`);
    const script = `cd "$0" && ${command.replace('REGISTRY', REGISTRY)}`;
    return cluster.exec('control-plane', 'env', `KUBE_EDITOR=${EDIT}`, 'sh', '-c', script, ROOT);
  };
  const hosts = (node: string): Promise<string> =>
    cluster.exec(node, 'sh', '-c', 'ls /etc/containerd/certs.d');

  test('goes as it says', async () => {
    assert.equal(commands.length, 5);
    const untouched = await Promise.all(cluster.nodes.map(({ name }) => hosts(name)));
    await follow('install');
    await eventually('every node is configured', async () => {
      return (await follow('get nodes')).match(/ configured$/gm)?.length === cluster.nodes.length;
    });
    const tested = await follow('helm test');
    for (const { name } of cluster.nodes)
      assert.match(tested, new RegExp(`${name}: pulled through the mirror`));
    await follow('edit');
    for (const { name } of cluster.nodes)
      await eventually('the edit is on the node', async () =>
        /registry\.corp\.example/.test(await hosts(name)),
      );
    await follow('uninstall');
    assert.deepEqual(await Promise.all(cluster.nodes.map(({ name }) => hosts(name))), untouched);
  });
});
