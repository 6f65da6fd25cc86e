// A bus of D-Bus with systemd on it, over a real socket, whose one unit does what a test says.

import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import {
  type DbusMessage,
  type DbusValue,
  readMessage,
  writeMessage,
} from '../../agent/configure/dbus-message.ts';

export interface ScriptedSystemd {
  /** Of the unit, by the name of the property. */
  readonly properties: Map<string, DbusValue>;
  readonly pid: number;
  /** How often the unit was restarted. */
  readonly restarts: number;
  /** What becomes of a restart; its job is there until this resolves. */
  restart: () => Promise<void> | void;
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

const refuseNothing: ScriptedSystemd['refuse'] = () => undefined;

/** @param socket where it listens. */
export async function startSystemd(t: TestContext, socket: string, pid: number): Promise<ScriptedSystemd> {
  const jobs = new Set<string>();
  const users: string[] = [];
  const clients = new Set<Socket>();
  let invocation = 1;
  const systemd = {
    pid,
    restarts: 0,
    users,
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
    if (call.member === 'Get' && jobs.has(call.path ?? '')) return { signature: 'v', body: ['running'] };
    const value = call.path === UNIT_PATH ? systemd.properties.get(String(call.body?.[1])) : undefined;
    return value === undefined
      ? 'org.freedesktop.DBus.Error.UnknownObject'
      : { signature: 'v', body: [value] };
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
