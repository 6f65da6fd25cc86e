import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { type TestContext, test } from 'node:test';
import { DbusError, withBus } from '../../agent/configure/dbus.ts';
import {
  type DbusMessage,
  type DbusValue,
  readMessage,
  writeMessage,
} from '../../agent/configure/dbus-message.ts';
import { Refusal } from '../../agent/configure/refusal.ts';
import { findUnit } from '../../agent/configure/systemd.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { until } from './scripted-replica.ts';
import { startSystemd, UNIT } from './scripted-systemd.ts';

const PID = 4711;
const { signal } = new AbortController();

test('a message is read back as it was written, in pieces and with more behind it', () => {
  const message: DbusMessage = {
    type: 'call',
    serial: 7,
    path: '/a/b',
    interface: 'a.b',
    member: 'C',
    destination: ':1.7',
    signature: 'suoaya(sasb)a{st}',
    body: ['grün', 4_000_000_000, '/o', [1, 2, 255], [['/bin/x', ['x', '--y'], false]], [['a', 2n ** 40n]]],
  };
  const bytes = writeMessage(message);
  for (let length = 0; length < bytes.length; length++)
    assert.equal(readMessage(bytes.subarray(0, length)), undefined);
  const found = readMessage(Buffer.concat([bytes, bytes]));
  assert.deepEqual(found, { message: { ...message, replySerial: 0 }, length: bytes.length });
});

test('a variant is written with its type, and read as its value', () => {
  const message = { type: 'call', serial: 7, signature: 'ya(sv)b' } as const;
  const list: DbusValue = [
    ['a', { type: 'b', value: true }],
    ['bc', { type: 'a(sasb)', value: [['x', ['y'], true]] }],
    ['', { type: 't', value: 3 }],
    ['none', { type: 'a(sv)', value: [] }],
  ];
  const bytes = writeMessage({ ...message, body: [1, list, false] });
  const read = [
    ['a', true],
    ['bc', [['x', ['y'], true]]],
    ['', 3n],
    ['none', []],
  ];
  assert.deepEqual(readMessage(bytes)?.message.body, [1, read, false]);
});

test('a value that is not of its type is not sent', () => {
  for (const [signature, value] of [
    ['v', 'x'],
    ['s', ['x']],
    ['as', 'x'],
    ['d', 1],
    ['s', { type: 's', value: 'x' }],
  ] as const)
    assert.throws(() => writeMessage({ type: 'call', serial: 1, signature, body: [value] }), /are not sent/);
});

test('every type of value is read, in both orders of bytes', () => {
  // y=1 b=true n=-2 q=3 i=-4 x=-5 t=6 d=0.5 as=["a"] a{sv}={"k": <u 7>} (uo)=(0,"/")
  const signature = 'ybnqixtdasa{sv}(uo)';
  const little = body(signature, true);
  const expected = [1, true, -2, 3, -4, -5n, 6n, 0.5, ['a'], [['k', 7]], [0, '/']];
  assert.deepEqual(readMessage(little)?.message.body, expected);
  assert.deepEqual(readMessage(body(signature, false))?.message.body, expected);
});

test('what is no message is refused', () => {
  assert.throws(() => readMessage(Buffer.from('HTTP/1.1 400 Bad Request\r\n')), /no message of D-Bus/);
});

test('a unit is restarted, and waited for until its job is done', async (t) => {
  const { root, systemd } = await node(t);
  const unit = await findUnit(root, { pid: PID, args: [], startedAt: 0 });
  assert.equal(unit.name, UNIT);
  assert.equal(await unit.run(), '0001');
  const job = Promise.withResolvers<void>();
  systemd.restart = () => job.promise;
  let looks = 0;
  systemd.refuse = ({ path }) => {
    if (path?.includes('/job/') === true) looks += 1;
    return undefined;
  };
  const restarting = unit.restart(undefined, signal);
  await until(() => looks > 1);
  assert.equal(await Promise.race([restarting, Promise.resolve('waiting')]), 'waiting');
  job.resolve();
  await restarting;
  assert.equal(await unit.run(), '0002');
  assert.deepEqual([...new Set(systemd.users)], [String(process.getuid?.())]);
});

test('a unit that does not run after its restart is told, and has no run', async (t) => {
  const { root, systemd } = await node(t);
  const unit = await findUnit(root, { pid: PID, args: [], startedAt: 0 });
  systemd.restart = () => {
    systemd.properties.set('ActiveState', 'activating').set('Result', 'exit-code');
  };
  await assert.rejects(unit.restart(undefined, signal), {
    message:
      'containerd.service is activating after its restart (exit-code): journalctl -u containerd.service says why',
  });
  assert.equal(await unit.run(), undefined);
});

test('nobody waits for a restart any longer than he wants to', async (t) => {
  const { root, systemd } = await node(t);
  const unit = await findUnit(root, { pid: PID, args: [], startedAt: 0 });
  const stop = new AbortController();
  systemd.restart = () => {
    stop.abort();
    return new Promise(() => undefined);
  };
  await assert.rejects(unit.restart(undefined, stop.signal), { name: 'AbortError' });
});

test('a restart that systemd refuses is told in its words', async (t) => {
  const { root, systemd } = await node(t);
  const unit = await findUnit(root, { pid: PID, args: [], startedAt: 0 });
  systemd.refuse = ({ member }) =>
    member === 'RestartUnit' ? 'org.freedesktop.DBus.Error.AccessDenied' : undefined;
  await assert.rejects(
    unit.restart(undefined, signal),
    (error) =>
      error instanceof DbusError && error.code.endsWith('.AccessDenied') && error.message === 'refused',
  );
  assert.equal(systemd.restarts, 0);
});

for (const [property, value, reason] of [
  ['KillMode', 'mixed', /^containerd\.service has KillMode=mixed: a restart would end containers$/],
  [
    'MainPID',
    1,
    /^containerd \(process 4711\) belongs to containerd\.service, and is not what it is there for$/,
  ],
  ['Id', 'user.slice', /belongs to user\.slice/],
] as const)
  test(`a unit whose ${property} is ${value} is not restarted`, async (t) => {
    const { root, systemd } = await node(t);
    systemd.properties.set(property, value);
    await refused(root, reason);
    assert.equal(systemd.restarts, 0);
  });

test('a process that is of no unit, a bus that lets nobody in, and none at all are told', async (t) => {
  const { root, systemd } = await node(t);
  systemd.refuse = ({ member }) =>
    member === 'GetUnitByPID' ? 'org.freedesktop.systemd1.NoUnitForPID' : undefined;
  await refused(root, /^systemd does not answer on \/run\/dbus\/system_bus_socket: refused$/);
  systemd.authentication = 'REJECTED EXTERNAL';
  await refused(root, /the bus does not let us in: REJECTED EXTERNAL/);
  await refused(join(root, 'elsewhere'), /ENOENT/);
});

test('a bus that goes away, or says what cannot be read, fails the calls that wait', async (t) => {
  const { socket, systemd } = await node(t);
  const asked = Promise.withResolvers<void>();
  systemd.refuse = ({ member }) => {
    if (member === 'Ask') asked.resolve();
    return undefined;
  };
  const call = { destination: 'a', path: '/', interface: 'a', member: 'Ask' };
  await withBus(socket, async (bus) => {
    systemd.say(Buffer.from('no message of any kind at all'));
    await assert.rejects(bus.call(call), /no message of D-Bus|closed/);
    await assert.rejects(bus.call(call), /no message of D-Bus|closed/);
  });
});

async function node(t: TestContext) {
  const root = await makeScratch();
  t.after(() => removeScratch(root));
  await mkdir(join(root, 'run/dbus'), { recursive: true });
  const socket = join(root, 'run/dbus/system_bus_socket');
  return { root, socket, systemd: await startSystemd(t, socket, PID) };
}

async function refused(root: string, reason: RegExp): Promise<void> {
  await assert.rejects(
    findUnit(root, { pid: PID, args: [], startedAt: 0 }),
    (error) => error instanceof Refusal && reason.test(error.message) && error.remedy !== '',
  );
}

/** A return with a value of each type, put together by hand. */
function body(signature: string, isLittle: boolean): Buffer {
  const order = (bytes: Buffer): Buffer => (isLittle ? bytes : Buffer.from(bytes.toReversed()));
  const number = (size: number, value: bigint): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return order(bytes.subarray(0, size));
  };
  const half = Buffer.alloc(8);
  half.writeDoubleLE(0.5);
  const text = (value: string): Buffer =>
    Buffer.concat([number(4, BigInt(value.length)), Buffer.from(`${value}\0`)]);
  const values: readonly (readonly [alignment: number, bytes: Buffer])[] = [
    [1, Buffer.from([1])],
    [4, number(4, 1n)],
    [2, number(2, -2n)],
    [2, number(2, 3n)],
    [4, number(4, -4n)],
    [8, number(8, -5n)],
    [8, number(8, 6n)],
    [8, order(half)],
    [4, number(4, 6n)],
    [4, text('a')],
    // A dictionary: its length, from its first pair on, which is at a multiple of 8.
    [4, number(4, 16n)],
    [8, text('k')],
    [1, Buffer.from([1, 'u'.charCodeAt(0), 0])],
    [4, number(4, 7n)],
    [8, number(4, 0n)],
    [4, text('/')],
  ];
  const parts: Buffer[] = [];
  let length = 0;
  for (const [alignment, bytes] of values) {
    const padding = Buffer.alloc((alignment - (length % alignment)) % alignment);
    parts.push(padding, bytes);
    length += padding.length + bytes.length;
  }
  const fields = Buffer.concat([
    Buffer.from([8, 1, 'g'.charCodeAt(0), 0, signature.length]),
    Buffer.from(`${signature}\0`),
  ]);
  const head = [
    Buffer.from([(isLittle ? 'l' : 'B').charCodeAt(0), 2, 0, 1]),
    number(4, BigInt(length)),
    number(4, 1n),
  ];
  const all = Buffer.concat([...head, number(4, BigInt(fields.length)), fields]);
  return Buffer.concat([all, Buffer.alloc((8 - (all.length % 8)) % 8), ...parts]);
}
