// A node's systemd is asked to run its containerd: scripted, over a real socket.

import assert from 'node:assert/strict';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { clearDump, dumpConfig, UnacceptedError } from '../../agent/configure/config-dump.ts';
import { DbusError } from '../../agent/configure/dbus.ts';
import { CONFIG, makeTestNode, PLAIN, plantProcess, STATE } from './configure-node.ts';
import { cutBefore } from './cut-power.ts';
import { failWrites } from './failing-disk.ts';
import { until } from './scripted-replica.ts';
import { type ScriptedUnit, sayInFiles, startSystemd } from './scripted-systemd.ts';

const PID = 4711;
const UNIT = 'weir-config-dump.service';
const FOLDER = `${STATE}/runtime-configuration`;
const { signal } = new AbortController();

async function makeNode(t: TestContext, ...args: readonly string[]) {
  const node = await makeTestNode(t);
  await plantProcess(node.root, PID, ...args);
  await mkdir(join(node.root, 'run/dbus'), { recursive: true });
  const systemd = await startSystemd(t, join(node.root, 'run/dbus/system_bus_socket'), PID);
  const { root } = node;
  systemd.runUnit = (unit) => sayInFiles(root, unit, PLAIN);
  const place = { root, folder: FOLDER };
  return {
    node,
    systemd,
    place,
    dump: async (stop = signal) => dumpConfig({ ...place, sight: await node.see() }, stop),
    /** Nothing of it is there any more. */
    assertNothingStays: async () => {
      assert.deepEqual([...systemd.units], []);
      assert.deepEqual(await node.files(STATE), {});
    },
  };
}

test('systemd runs it once, in a unit of which nothing stays', async (t) => {
  const { systemd, node, dump, assertNothingStays } = await makeNode(t);
  const units: ScriptedUnit[] = [];
  systemd.runUnit = async (unit) => {
    units.push(unit);
    const { mode } = await stat(join(node.root, FOLDER));
    assert.equal(mode & 0o777, 0o700);
    return sayInFiles(node.root, unit, PLAIN);
  };
  assert.equal(await dump(), PLAIN);
  await assertNothingStays();
  assert.deepEqual(Object.fromEntries(units[0]?.settings ?? []), {
    Description: 'containerd config dump, for weir',
    DefaultDependencies: false,
    Type: 'oneshot',
    RemainAfterExit: true,
    TimeoutStartUSec: 30_000_000n,
    TimeoutStopUSec: 5_000_000n,
    StandardOutputFile: `${FOLDER}/config-dump.out`,
    StandardErrorFile: `${FOLDER}/config-dump.err`,
    ExecStart: [['/usr/bin/containerd', ['/usr/bin/containerd', 'config', 'dump'], false]],
  });
  assert.equal(units.length, 1);
});

/** As systemd says it of a unit. */
const startedBy = (path: string) => ({
  type: 'a(sasbttttuu)',
  value: [[path, [path, '--config', '$CONFIG'], false, 0n, 0n, 0n, 0n, 0, 0]],
});

for (const [what, args, path, command] of [
  ['its unit starts by now', [], '/opt/2/containerd', ['/opt/2/containerd', 'config', 'dump']],
  ['runs, under a script', [], '/opt/start.sh', ['/usr/bin/containerd', 'config', 'dump']],
  [
    'was started with this file',
    ['--log-level=info', '--config', '/etc/mine.toml'],
    '/usr/bin/containerd',
    ['/usr/bin/containerd', '--config', '/etc/mine.toml', 'config', 'dump'],
  ],
  [
    'has no file',
    ['-c=/etc/none.toml'],
    '/usr/bin/containerd',
    ['/usr/bin/containerd', '--config', '/dev/null', 'config', 'dump'],
  ],
] as const)
  test(`the containerd that is asked is the one that ${what}`, async (t) => {
    const { node, systemd, dump } = await makeNode(t, ...args);
    await node.write('/etc/mine.toml', PLAIN);
    systemd.properties.set('ExecStart', startedBy(path));
    let asked: readonly string[] = [];
    systemd.runUnit = (unit) => {
      asked = unit.command;
      return sayInFiles(node.root, unit, PLAIN);
    };
    await dump();
    assert.deepEqual(asked, command);
  });

test('a program that nobody knows the path of is not run', async (t) => {
  const { node, dump, assertNothingStays } = await makeNode(t);
  await writeFile(join(node.root, `proc/${PID}/cmdline`), 'containerd\0');
  await assert.rejects(dump(), /^Error: where the program of containerd \(process 4711\) is cannot be told$/);
  await assertNothingStays();
});

for (const [what, ended, isUnaccepted, message] of [
  [
    'does not start with it',
    ['level=warning msg="old"\ncontainerd: (2, 1): wrong\n', 'exit-code', 1],
    true,
    'containerd: (2, 1): wrong',
  ],
  ['ends without a word', ['', 'exit-code', 2], true, 'it ends with status 2'],
  ['is not there', ['', 'exit-code', 203], false, `${UNIT} ended with "exit-code" (status 203)`],
  [
    'takes too long',
    ['waiting\n', 'timeout', 15],
    false,
    `${UNIT} ended with "timeout" (status 15): waiting`,
  ],
  [
    'says nothing',
    ['', 'success', 0],
    false,
    `${UNIT} ended well, and ${FOLDER}/config-dump.out has nothing in it`,
  ],
] as const)
  test(`a containerd that ${what} is told, and nothing stays`, async (t) => {
    const { node, systemd, dump, assertNothingStays } = await makeNode(t);
    systemd.runUnit = (unit) => sayInFiles(node.root, unit, '', ended);
    await assert.rejects(dump(), (error) => {
      assert.equal(error instanceof UnacceptedError, isUnaccepted);
      assert.equal(error instanceof Error && error.message, message);
      return true;
    });
    await assertNothingStays();
  });

test('a systemd that does not make such units is told in its words', async (t) => {
  const { systemd, dump, assertNothingStays } = await makeNode(t);
  systemd.refuse = ({ member }) =>
    member === 'StartTransientUnit' ? 'org.freedesktop.DBus.Error.PropertyReadOnly' : undefined;
  await assert.rejects(dump(), (error) => error instanceof DbusError && error.message === 'refused');
  await assertNothingStays();
});

test('a disk that is full, and a node without a bus, are told', async (t) => {
  const { node, dump, assertNothingStays } = await makeNode(t);
  const heal = failWrites(t, 'ENOSPC', (path) => path.includes('config-dump.err') || path.endsWith('.aside'));
  await assert.rejects(dump(), /^Error: cannot write \S+config-dump\.out: no space left on device/);
  heal();
  await assertNothingStays();
  const bare = await makeTestNode(t);
  await assert.rejects(
    dumpConfig({ root: bare.root, folder: FOLDER, sight: await bare.see() }, signal),
    /ENOENT/,
  );
  assert.deepEqual(await bare.files(STATE), {});
  assert.equal(await node.read(CONFIG), PLAIN);
});

test('nobody waits for it any longer than he wants to, and what runs is ended', async (t) => {
  const { node, systemd, dump, assertNothingStays } = await makeNode(t);
  const stop = new AbortController();
  systemd.runUnit = async () => {
    stop.abort();
    return new Promise(() => undefined);
  };
  await assert.rejects(dump(stop.signal), { name: 'AbortError' });
  await assertNothingStays();
  systemd.runUnit = (unit) => sayInFiles(node.root, unit, PLAIN);
  assert.equal(await dump(), PLAIN);
});

for (const state of ['activating', 'active', 'failed'] as const)
  test(`what a killed agent left of it does not matter, ${state} or not, and goes`, async (t) => {
    const { node, systemd, dump, place, assertNothingStays } = await makeNode(t);
    const leave = async (): Promise<void> => {
      const left = { settings: new Map(), command: [], state, result: 'success', status: 0 };
      systemd.units.set(UNIT, left);
      await node.write(`${FOLDER}/config-dump.out`, 'left, and longer than what is said now\n'.repeat(9));
      await node.write(`${FOLDER}/config-dump.err`, 'left\n');
    };
    await leave();
    assert.equal(await dump(), PLAIN);
    await assertNothingStays();

    await leave();
    await clearDump(place);
    await assertNothingStays();

    await leave();
    systemd.authentication = 'REJECTED';
    assert.equal(await node.restore(), undefined);
    assert.deepEqual(await node.files(STATE), {});
  });

test('whenever the agent is killed while it asks, the next start leaves nothing of it', async (t) => {
  let count = 0;
  for (let isKilled = true; isKilled; count++) {
    const { node, systemd, dump, place, assertNothingStays } = await makeNode(t);
    isKilled = await cutBefore(t, count, async (spend) => {
      systemd.refuse = ({ member }) => {
        if (member !== 'StopUnit') return undefined;
        try {
          spend();
          return undefined;
        } catch {
          return 'org.freedesktop.DBus.Error.NoReply';
        }
      };
      await dump();
    });
    systemd.refuse = () => undefined;
    await clearDump(place);
    await until(() => systemd.units.size === 0);
    await node.restore();
    await assertNothingStays();
  }
  assert.ok(count > 10, String(count));
});
