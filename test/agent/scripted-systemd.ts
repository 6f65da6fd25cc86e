// A bus of D-Bus with systemd on it, over a real socket, whose one unit does what a test says.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  type DbusMessage,
  type DbusValue,
  type DbusVariant,
  readMessage,
  writeMessage,
} from '../../agent/configure/dbus-message.ts';

/** A unit that a client has made, as far as it is looked at. */
export interface ScriptedUnit {
  /** As they were given. */
  readonly settings: ReadonlyMap<string, DbusValue>;
  /** Of its process: the program, and what is given to it. */
  readonly command: readonly string[];
  state: 'activating' | 'active' | 'failed';
  result: string;
  status: number;
}

export interface ScriptedSystemd {
  /** Of the unit, by the name of the property. */
  readonly properties: Map<string, DbusValue>;
  readonly pid: number;
  /** How often the unit was restarted. */
  readonly restarts: number;
  /** What becomes of a restart; its job is there until this resolves. */
  restart: () => Promise<void> | void;
  /** Runs the program of a unit that a client has made, and says how it ended; it is started until this resolves. */
  runUnit: (unit: ScriptedUnit) => Promise<readonly [result: string, status: number]>;
  /** By name: those that clients have made, and nobody has ended. */
  readonly units: Map<string, ScriptedUnit>;
  /** Answers itself, with an error of this name. */
  refuse: (call: DbusMessage) => string | undefined;
  /** What goes to the client in place of an answer to AUTH. */
  authentication: string;
  /** Who asked to be let in. */
  readonly users: readonly string[];
  /** Writes these bytes to every client. */
  say(bytes: Buffer): void;
}

export const UNIT = 'containerd.service';
const UNIT_PATH = '/org/freedesktop/systemd1/unit/containerd_2eservice';

const UNITS = '/org/freedesktop/systemd1/unit/';

const runNothing: ScriptedSystemd['runUnit'] = () => Promise.resolve(['exit-code', 203]);
const refuseNothing: ScriptedSystemd['refuse'] = () => undefined;

/** @param socket where it listens. */
export async function startSystemd(t: TestContext, socket: string, pid: number): Promise<ScriptedSystemd> {
  const jobs = new Set<string>();
  const units = new Map<string, ScriptedUnit>();
  const users: string[] = [];
  const clients = new Set<Socket>();
  let invocation = 1;
  let lastJob = 0;
  const systemd = {
    pid,
    restarts: 0,
    users,
    units,
    runUnit: runNothing,
    properties: new Map<string, DbusValue>([
      ['Id', UNIT],
      ['MainPID', pid],
      ['KillMode', 'process'],
      ['ActiveState', 'active'],
      ['Result', 'success'],
      ['InvocationID', [0, 1]],
    ]),
    restart: (): Promise<void> | void => undefined,
    refuse: refuseNothing,
    authentication: 'OK 1234deadbeef',
    say(bytes: Buffer): void {
      for (const client of clients) client.write(bytes);
    },
  };

  const answer = (call: DbusMessage): Pick<DbusMessage, 'signature' | 'body'> | string => {
    const refusal = systemd.refuse(call);
    if (refusal !== undefined) return refusal;
    if (call.member === 'Hello') return { signature: 's', body: [':1.7'] };
    if (call.member === 'GetUnitByPID' && call.body?.[0] === pid)
      return { signature: 'o', body: [UNIT_PATH] };
    if (call.member === 'LoadUnit' && call.body?.[0] === UNIT) return { signature: 'o', body: [UNIT_PATH] };
    if (call.member === 'RestartUnit') {
      systemd.restarts += 1;
      invocation += 1;
      const job = `/org/freedesktop/systemd1/job/${systemd.restarts}`;
      jobs.add(job);
      systemd.properties.set('InvocationID', [0, invocation]);
      void Promise.resolve(systemd.restart()).then(() => jobs.delete(job));
      return { signature: 'o', body: [job] };
    }
    if (call.member === 'Get' && jobs.has(call.path ?? ''))
      return { signature: 'v', body: [variantOf('running')] };
    const [first, asked] = (call.body ?? []).map(textOf);
    if (first !== undefined && first !== UNIT) {
      const done = answerOfUnits(call, first);
      if (done !== undefined) return done;
    }
    const unit = units.get(call.path?.slice(UNITS.length) ?? '');
    const value =
      call.path === UNIT_PATH
        ? systemd.properties.get(asked ?? '')
        : unit && { ActiveState: unit.state, Result: unit.result, ExecMainStatus: unit.status }[asked ?? ''];
    return value === undefined
      ? 'org.freedesktop.DBus.Error.UnknownObject'
      : { signature: 'v', body: [variantOf(value)] };
  };

  const runUnit = async (name: string, unit: ScriptedUnit): Promise<void> => {
    const [result, status] = await systemd.runUnit(unit);
    if (units.get(name) === unit)
      Object.assign(unit, { state: result === 'success' ? 'active' : 'failed', result, status });
  };

  const beginJob = (until: Promise<unknown>): Pick<DbusMessage, 'signature' | 'body'> => {
    lastJob += 1;
    const job = `/org/freedesktop/systemd1/job/of-units/${lastJob}`;
    jobs.add(job);
    void until.finally(() => jobs.delete(job));
    return { signature: 'o', body: [job] };
  };

  /** Of units that a client makes (`StartTransientUnit`). */
  const answerOfUnits = ({ member, body }: DbusMessage, name: string) => {
    const unit = units.get(name);
    if (member === 'StartTransientUnit') {
      if (unit !== undefined) return 'org.freedesktop.systemd1.UnitExists';
      const made = unitOf(body?.[2]);
      units.set(name, made);
      const ended = runUnit(name, made);
      return beginJob(ended);
    }
    if (member === 'LoadUnit') return { signature: 'o', body: [UNITS + name] };
    if (member !== 'StopUnit' && member !== 'ResetFailedUnit') return undefined;
    if (unit === undefined) return 'org.freedesktop.systemd1.NoSuchUnit';
    if (member === 'ResetFailedUnit') {
      if (unit.state === 'failed') units.delete(name);
      return {};
    }
    if (unit.state !== 'failed') units.delete(name);
    return beginJob(Promise.resolve());
  };

  const serve = (client: Socket): void => {
    clients.add(client);
    let bytes = Buffer.alloc(0);
    let isIn = false;
    client.on('error', () => undefined).on('close', () => clients.delete(client));
    client.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      const line = isIn ? undefined : /^\0?(AUTH EXTERNAL (\w+)|BEGIN)\r\n/.exec(bytes.toString('latin1'));
      if (line?.[1] === 'BEGIN') isIn = true;
      else if (line !== undefined && line !== null) {
        users.push(Buffer.from(line[2] ?? '', 'hex').toString());
        client.write(`${systemd.authentication}\r\n`);
      }
      bytes = bytes.subarray(line?.[0].length ?? 0);
      if (!isIn) return;
      for (let found = readMessage(bytes); found !== undefined; found = readMessage(bytes)) {
        bytes = bytes.subarray(found.length);
        const given = answer(found.message);
        const head = { serial: 1, replySerial: found.message.serial };
        client.write(
          typeof given === 'string'
            ? writeMessage({ type: 'error', ...head, errorName: given, signature: 's', body: ['refused'] })
            : writeMessage({ type: 'return', ...head, ...given }),
        );
      }
    });
  };
  const server = createServer(serve).listen(socket);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const client of clients) client.destroy();
  });
  return systemd;
}

/** Writes to the files of a unit, below a root, as the program in it does: nobody else can read them, and they are empty. */
export async function sayInFiles(
  root: string,
  { settings }: ScriptedUnit,
  stdout: string,
  [stderr, ...ended]: readonly [stderr: string, result: string, status: number] = ['', 'success', 0],
): ReturnType<ScriptedSystemd['runUnit']> {
  for (const [name, text] of [
    ['StandardOutputFile', stdout],
    ['StandardErrorFile', stderr],
  ] as const) {
    const path = join(root, textOf(settings.get(name)));
    const { mode, size } = await stat(path);
    assert.deepEqual([mode & 0o777, size], [0o600, 0]);
    await writeFile(path, text, { flag: 'r+' });
  }
  return ended;
}

function unitOf(settings: DbusValue | undefined): ScriptedUnit {
  const pairs = listOf(settings).map((pair) => listOf(pair));
  const given = new Map(pairs.map(([name, value]) => [textOf(name), value ?? '']));
  const [command] = listOf(given.get('ExecStart'));
  const args = listOf(listOf(command)[1]).map(textOf);
  return { settings: given, command: args, state: 'activating', result: 'success', status: 0 };
}

function variantOf(value: DbusValue): DbusVariant {
  if (typeof value === 'object' && 'type' in value) return value;
  const type = typeof value === 'number' ? 'u' : Array.isArray(value) ? 'ay' : 's';
  return { type, value };
}

function listOf(value: DbusValue | undefined): readonly DbusValue[] {
  return typeof value === 'object' && !('type' in value) ? value : [];
}

function textOf(value: DbusValue | undefined): string {
  return typeof value === 'string' ? value : '';
}
