// What a plan tells of a node that is to be left, or whose runtime is to be configured.

import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { applyOnce } from '../../agent/agent.ts';
import { previewEdit } from '../../agent/configure/proposal.ts';
import { CrioFiles } from '../../agent/crio/crio-files.ts';
import { restoreNode } from '../../agent/restore-node.ts';
import { type Plan, type PlanOptions, planNode } from '../../agent/runtimes/plan.ts';
import { weir } from '../support/weir-command.ts';
import {
  CERTS,
  CONFIG,
  EDITED,
  JOURNAL,
  makeTestNode,
  PLAIN,
  STATE,
  type TestNode,
} from './configure-node.ts';
import { configOf, MIRROR } from './node-files.ts';

const YAML = 'upstreams: { docker.io: {}, quay.io: {} }';
const MINE = '# mine\nserver = "https://quay.io"\n';
const DOCKER_HUB = `${CERTS}/docker.io/hosts.toml`;
const QUAY = `${CERTS}/quay.io/hosts.toml`;
const log = pino({ level: 'silent' });

/** A node without `config_path`, as containerd 1.7 has it. */
async function makeNode(t: TestContext, text = PLAIN): Promise<TestNode> {
  const node = await makeTestNode(t, text);
  const status = 'Package: containerd\nStatus: install ok installed\nVersion: 1.7.24-1\n\n';
  await node.write('/var/lib/dpkg/status', status);
  await node.write(QUAY, MINE);
  return node;
}

async function planOf(node: TestNode, options: Partial<PlanOptions> = {}): Promise<Plan> {
  const [sight, before] = [await node.see(), await node.files('/')];
  const { root } = node;
  const plan = await planNode({
    root,
    sight,
    stateDir: STATE,
    config: configOf(YAML),
    mirror: MIRROR,
    ...options,
  });
  assert.deepEqual(await node.files('/'), before, 'nothing is changed');
  return plan;
}

function filesOf({ files }: Plan): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries(files.map(({ path, after }) => [path, after]));
}

const apply = ({ root }: TestNode) =>
  applyOnce({ root, certsDir: CERTS, stateDir: STATE, log, config: configOf(YAML), mirror: MIRROR });

test('a plan of a node that is told nothing any more says what is taken away and what comes back', async (t) => {
  const node = await makeNode(t);
  await apply(node);
  const plan = await planOf(node);
  assert.deepEqual(filesOf(plan), { [DOCKER_HUB]: undefined, [QUAY]: MINE });
  assert.deepEqual(plan.problems, []);
  await restoreNode({ root: node.root, stateDir: STATE, log }, []);
  assert.deepEqual(await planOf(node), { files: [], state: [], problems: [] });
});

test('a plan of a node that has another runtime now says what goes of the one before', async (t) => {
  const node = await makeNode(t, EDITED);
  await node.write('/etc/containers/registries.conf', '');
  const crio = new CrioFiles({ root: node.root, stateDir: STATE, log, settle: 0 });
  await crio.apply({ config: configOf(YAML), mirror: MIRROR });
  const files = filesOf(await planOf(node));
  assert.deepEqual(Object.keys(files), [DOCKER_HUB, QUAY, '/etc/containers/registries.conf.d/zzz-weir.conf']);
  assert.equal(files['/etc/containers/registries.conf.d/zzz-weir.conf'], undefined);
});

test("a plan says what is taken back of the runtime's configuration, unless it is to stay", async (t) => {
  const node = await makeNode(t);
  await node.configure();
  assert.equal(filesOf(await planOf(node))[CONFIG], PLAIN);
  assert.ok(!(CONFIG in filesOf(await planOf(node, { configureRuntime: true }))));
  await writeFile(join(node.root, JOURNAL), '{');
  const { problems } = await planOf(node);
  assert.match(problems.join(), /journal\.json.* cannot be understood/);
});

test("a plan has the edit of the runtime's configuration, and the files that hold then", async (t) => {
  const node = await makeNode(t);
  const edit = await previewEdit({ root: node.root, stateDir: STATE, sight: await node.see() });
  const plan = await planOf(node, { configureRuntime: true, edit });
  await node.configure();
  await apply(node);
  const after = await Promise.all([DOCKER_HUB, QUAY, CONFIG].map((path) => node.read(path)));
  assert.deepEqual(Object.entries(filesOf(plan)), [
    [DOCKER_HUB, after[0]],
    [QUAY, after[1]],
    [CONFIG, after[2]],
  ]);
});

test('a plan has no edit of files that failed before', async (t) => {
  const node = await makeNode(t);
  node.refuse = (text) => (text.includes(CERTS) ? 'it is down' : undefined);
  await node.configure();
  await assert.rejects(
    previewEdit({ root: node.root, stateDir: STATE, sight: await node.see() }),
    /^Refusal: this was tried with the same files before, and failed: it is down$/,
  );
});

test('weir node plan --configure-runtime shows the edit, and says what it takes or stands against it', async (t) => {
  const node = await makeNode(t);
  const config = join(node.root, 'config.yaml');
  await writeFile(config, YAML);
  const flags = ['--host-root', node.root, '--state-dir', STATE, '--config', config, '--mirror', MIRROR];
  const plan = (...more: readonly string[]) => weir('node', 'plan', ...flags, ...more);

  const shown = await plan('--configure-runtime');
  assert.match(
    shown.stdout,
    /\+\+\+ \/etc\/containerd\/certs\.d\/docker\.io\/hosts\.toml\n[\s\S]*\n--- \/etc\/containerd\/config\.toml\n\+\+\+ \/etc\/containerd\/config\.toml\n@@ [\s\S]*\n\+ *config_path = "\/etc\/containerd\/certs\.d"\n/,
  );
  assert.match(shown.stderr, /runtime would be restarted for \/etc\/containerd\/config\.toml/);

  const none = await plan();
  assert.equal(none.stdout, '');
  assert.match(none.stderr, /nothing would be written: no config_path is set/);

  await rm(join(node.root, 'proc/4711'), { recursive: true });
  const refused = await plan('--configure-runtime');
  assert.equal(refused.stdout, '');
  assert.match(refused.stderr, /config_path would not be set: no containerd runs on the node\. /);
  assert.match(refused.stderr, /nothing would be written: no config_path is set/);
});
