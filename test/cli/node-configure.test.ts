import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import { NodeConfigure, pauseAfter } from '../../cli/node-configure.ts';
import { essenceOf } from '../../cli/node-runtime.ts';
import { connectKubernetes } from '../../kubernetes/client.ts';
import {
  CERTS,
  CONFIG,
  dumpOf,
  EDITED,
  makeTestNode,
  PLAIN,
  STATE,
  type TestNode,
} from '../agent/configure-node.ts';
import { failWrites } from '../agent/failing-disk.ts';
import { type ScriptedCri, startCri } from '../agent/scripted-cri.ts';
import { until } from '../agent/scripted-replica.ts';
import { type ScriptedSystemd, sayInFiles, startSystemd } from '../agent/scripted-systemd.ts';
import { ScriptedApi } from '../kubernetes/scripted-api.ts';

const LEASE = '/apis/coordination.k8s.io/v1/namespaces/weir/leases/restart';
const PID = 4711;

interface Stage {
  readonly node: TestNode;
  readonly cri: ScriptedCri;
  readonly systemd: ScriptedSystemd;
  readonly api: ScriptedApi;
  /** After so many tries. */
  readonly paused: number[];
  /** What was told, and when nothing stood against it any more. */
  readonly told: (string | undefined)[];
  readonly start: (pauseMs?: number) => Promise<NodeConfigure>;
}

/** A node with a containerd 1.7 that a systemd restarts, in a cluster with Leases. */
async function stage(t: TestContext): Promise<Stage> {
  // Nobody else wants the Lease.
  t.mock.method(Math, 'random', () => 0);
  const node = await makeTestNode(t);
  const at = async (path: string): Promise<string> => {
    await mkdir(dirname(join(node.root, path)), { recursive: true });
    return join(node.root, path);
  };
  const api = await ScriptedApi.start(t);
  const systemd = await startSystemd(t, await at('/run/dbus/system_bus_socket'), PID);
  const cri = await startCri(await at('/run/containerd/containerd.sock'));
  t.after(() => cri.close());
  cri.configPath = '';
  systemd.restart = async () => {
    cri.configPath = (await node.read()) === EDITED ? CERTS : '';
  };
  systemd.runUnit = async (unit) => sayInFiles(node.root, unit, dumpOf((await node.read()) ?? ''));
  const paused: number[] = [];
  const told: (string | undefined)[] = [];
  return {
    node,
    cri,
    systemd,
    api,
    paused,
    told,
    async start(pauseMs = 1) {
      process.env['KUBECONFIG'] = api.kubeconfig;
      const configure: NodeConfigure = new NodeConfigure({
        kubernetes: connectKubernetes('test'),
        lease: { namespace: 'weir', name: 'restart' },
        node: 'node1',
        place: { root: node.root, stateDir: STATE, log: pino({ level: 'silent' }) },
        sight: await node.see(),
        log: pino({ level: 'silent' }),
        refused: () => told.push(configure.problem),
        pause: (tries) => {
          paused.push(tries);
          return pauseMs;
        },
      });
      t.after(() => configure.close());
      return configure;
    },
  };
}

test('config_path is set in its turn, the runtime restarted by systemd, and the agent starts again', async (t) => {
  const { node, systemd, api, told, start } = await stage(t);
  let holder: unknown;
  const { restart } = systemd;
  systemd.restart = () => {
    holder = api.get(LEASE)?.['spec'];
    return restart();
  };
  const configure = await start();
  await assert.rejects(configure.changed, /config_path is set, and the runtime was restarted/);
  assert.equal(await node.read(), EDITED);
  assert.equal(systemd.restarts, 1);
  assert.match(JSON.stringify(holder), /"holderIdentity":"node1"/);
  const last = api.requests.findLast(({ path }) => path === LEASE);
  assert.doesNotMatch(JSON.stringify(last?.body), /holderIdentity/);
  assert.deepEqual(told, []);
});

const NOT_READY = { type: 'RuntimeReady', status: false, reason: 'Busy', message: '' };

type Ending = () => unknown;

/** What passes by itself, or by whoever looks after the node; returns how it passes. */
const TROUBLES: Readonly<
  Record<
    string,
    readonly [problem: RegExp, begin: (stage: Stage, t: TestContext) => Ending | Promise<Ending>]
  >
> = {
  'a runtime that is not ready': [
    /the runtime says that it is not ready \(Busy\)/,
    ({ cri }) => {
      cri.answers = { Status: () => ({ status: { conditions: [NOT_READY] } }) };
      return () => {
        cri.answers = {};
      };
    },
  ],
  'a bus that does not answer': [
    /systemd does not answer/,
    ({ systemd }) => {
      systemd.refuse = () => 'org.freedesktop.DBus.Error.NoReply';
      return () => {
        systemd.refuse = () => undefined;
      };
    },
  ],
  'a full disk': [
    /no space left on device/,
    ({ node }, t) => failWrites(t, 'ENOSPC', (path) => path.startsWith(node.root)),
  ],
  'a journal that nobody understands': [
    /cannot be understood/,
    async ({ node }) => {
      const journal = `${STATE}/runtime-configuration/journal.json`;
      await node.write(journal, '{');
      return () => node.write(journal, JSON.stringify(FAILED));
    },
  ],
};
const FAILED = {
  version: 1,
  weir: '1.2.3',
  step: 'failed',
  reason: 'it is down',
  situation: 'other files',
  path: CONFIG,
  file: CONFIG,
  original: null,
  after: '',
  keys: ['x'],
  directory: CERTS,
  directories: [],
  restarter: 'test',
  run: null,
  running: [],
  restarts: [],
};

for (const [what, [problem, begin]] of Object.entries(TROUBLES))
  test(`${what} is told once, and once it has passed config_path is set`, async (t) => {
    const all = await stage(t);
    const { node, systemd, told, paused, start } = all;
    const end = await begin(all, t);
    const configure = await start();
    await until(() => paused.length > 2);
    assert.equal(told.length, 1);
    assert.match(told[0] ?? '', problem);
    assert.match(told[0] ?? '', /^weir did not set config_path: /);
    assert.deepEqual(paused.slice(0, 3), [1, 2, 3]);
    await end();
    await assert.rejects(configure.changed, /config_path is set/);
    assert.equal(configure.problem, undefined);
    assert.deepEqual(told.slice(1), [undefined]);
    assert.equal(await node.read(), EDITED);
    assert.equal(systemd.restarts, 1);
  });

test('what failed is looked at again and again, and not restarted again', async (t) => {
  const { node, systemd, paused, told, start } = await stage(t);
  systemd.restart = async () => {
    systemd.properties.set('ActiveState', (await node.read()) === PLAIN ? 'active' : 'failed');
  };
  await start();
  await until(() => paused.length > 5);
  assert.match(told[0] ?? '', /containerd\.service is failed after its restart/);
  assert.match(told[1] ?? '', /this was tried with the same files before/);
  assert.equal(told.length, 2);
  assert.equal(await node.read(), PLAIN);
  // The runtime serves, and is not restarted to roll back.
  assert.equal(systemd.restarts, 1);
});

test('a node that needs it no more is told, and left', async (t) => {
  const { node, cri, paused, told, start } = await stage(t);
  cri.answers = { Status: () => ({ status: { conditions: [NOT_READY] } }) };
  const configure = await start();
  await until(() => paused.length > 0);
  await node.write(CONFIG, EDITED);
  // A look while the file is written may find half of it.
  await until(() => told.length > 1 && configure.problem === undefined);
  const { length } = paused;
  await configure.close();
  assert.equal(paused.length, length);
});

test('an agent that is told to stop does not wait until the next try', async (t) => {
  const { cri, paused, start } = await stage(t);
  cri.answers = { Status: () => ({ status: { conditions: [NOT_READY] } }) };
  const configure = await start(600_000);
  await until(() => paused.length > 0);
  await configure.close();
  assert.deepEqual(paused, [1]);
});

test('tries are further and further apart, up to ten minutes, and each node has its own pauses', () => {
  const pauses = [1, 2, 3, 6, 7, 60, 2_000].map((tries) => pauseAfter(tries, 0.5));
  assert.deepEqual(pauses, [15_000, 30_000, 60_000, 480_000, 600_000, 600_000, 600_000]);
  assert.deepEqual([pauseAfter(2, 0), pauseAfter(2, 1)], [15_000, 45_000]);
});

test('an operator who takes out what stands against it is noticed', async (t) => {
  const node = await makeTestNode(t, `${PLAIN}[plugins."io.containerd.grpc.v1.cri".registry.mirrors.x]\n`);
  const status = 'Package: containerd\nStatus: install ok installed\nVersion: 1.7.24-1\n\n';
  await node.write('/var/lib/dpkg/status', status);
  const before = await seeNode({ root: node.root });
  await node.write(CONFIG, PLAIN);
  const after = await seeNode({ root: node.root });
  assert.deepEqual([before.missingConfigPath, after.missingConfigPath], [undefined, CERTS]);
  assert.equal(before.verdict.kind, after.verdict.kind);
  assert.notDeepEqual(essenceOf(before), essenceOf(after));
});
