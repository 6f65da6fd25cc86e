import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { messageOf } from '../../process/file-problem.ts';
import { resolveOnNode } from '../node-root.ts';
import type { HostProcess } from '../runtimes/host-processes.ts';
import { type Dbus, type DbusCall, DbusError, withBus } from './dbus.ts';
import { Refusal } from './refusal.ts';
import type { Restarter } from './restarter.ts';

/** Where the bus of a machine listens (D-Bus specification, "Well-known Message Bus Instances"). */
const BUS_SOCKET = '/run/dbus/system_bus_socket';
const SYSTEMD = 'org.freedesktop.systemd1';
const MANAGER = {
  destination: SYSTEMD,
  path: '/org/freedesktop/systemd1',
  interface: `${SYSTEMD}.Manager`,
} as const;
/** By which a restart leaves containers alone (systemd.kill(5)). */
const GENTLE = ['process', 'none'];

const LOOK_MS = 200;
/** systemd itself gives up a start after 90 s, unless the unit says otherwise. */
const PATIENCE_MS = 180_000;

/**
 * The unit of systemd that a process is the main one of, asked over the node's bus.
 *
 * @throws Refusal when there is none, or its restart would end more than the process.
 */
export async function findUnit(root: string, { pid }: HostProcess): Promise<Restarter> {
  const socket = await resolveOnNode(root, BUS_SOCKET);
  const remedy = 'Set config_path by hand and restart containerd as this machine does it.';
  try {
    return await withBus(socket, async (bus) => {
      const path = await callForText(bus, {
        ...MANAGER,
        member: 'GetUnitByPID',
        signature: 'u',
        body: [pid],
      });
      const name = z.string().parse(await property(bus, path, 'Unit', 'Id'));
      const main = name.endsWith('.service') ? await property(bus, path, 'Service', 'MainPID') : undefined;
      if (main !== pid)
        throw new Refusal(
          `containerd (process ${pid}) belongs to ${name}, and is not what it is there for`,
          remedy,
        );
      const killMode = z.string().parse(await property(bus, path, 'Service', 'KillMode'));
      if (!GENTLE.includes(killMode))
        throw new Refusal(
          `${name} has KillMode=${killMode}: a restart would end containers`,
          `Set KillMode=process in ${name}, as containerd's own unit has it.`,
        );
      return new Unit(socket, name);
    });
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`systemd does not answer on ${BUS_SOCKET}: ${messageOf(error)}`, remedy, {
      cause: error,
    });
  }
}

/** A unit that was found before. */
export async function unitOf(root: string, name: string): Promise<Restarter> {
  return new Unit(await resolveOnNode(root, BUS_SOCKET), name);
}

class Unit implements Restarter {
  readonly name: string;
  readonly isByItself = false;
  readonly #socket: string;

  constructor(socket: string, name: string) {
    this.#socket = socket;
    this.name = name;
  }

  async run(): Promise<string | undefined> {
    return withBus(this.#socket, async (bus) => {
      const path = await this.#path(bus);
      const state = await property(bus, path, 'Unit', 'ActiveState');
      if (state !== 'active') return undefined;
      const id = z.array(z.number()).parse(await property(bus, path, 'Unit', 'InvocationID'));
      return Buffer.from(id).toString('hex');
    });
  }

  async restart(_: string | undefined, signal: AbortSignal): Promise<void> {
    await withBus(this.#socket, async (bus) => {
      const body = [this.name, 'replace'];
      const job = await callForText(bus, { ...MANAGER, member: 'RestartUnit', signature: 'ss', body });
      const until = performance.now() + PATIENCE_MS;
      while (await isThere(bus, job)) {
        if (performance.now() > until)
          throw new Error(`the restart of ${this.name} did not end within ${PATIENCE_MS / 1000} s`);
        await setTimeout(LOOK_MS, undefined, { signal });
      }
      const path = await this.#path(bus);
      const state = await property(bus, path, 'Unit', 'ActiveState');
      const result = await property(bus, path, 'Service', 'Result');
      if (state !== 'active')
        throw new Error(
          `${this.name} is ${String(state)} after its restart (${String(result)}): journalctl -u ${this.name} says why`,
        );
    });
  }

  /** Units that do not run may have no object until they are asked for. */
  #path(bus: Dbus): Promise<string> {
    return callForText(bus, { ...MANAGER, member: 'LoadUnit', signature: 's', body: [this.name] });
  }
}

/** A job is there until it is done, and has a state that long. */
async function isThere(bus: Dbus, job: string): Promise<boolean> {
  try {
    await property(bus, job, 'Job', 'State');
    return true;
  } catch (error) {
    if (error instanceof DbusError) return false;
    throw error;
  }
}

async function property(
  bus: Dbus,
  path: string,
  kind: 'Unit' | 'Service' | 'Job',
  name: string,
): Promise<unknown> {
  const properties = {
    destination: SYSTEMD,
    path,
    interface: 'org.freedesktop.DBus.Properties',
    member: 'Get',
  };
  const [value] = await bus.call({ ...properties, signature: 'ss', body: [`${SYSTEMD}.${kind}`, name] });
  return value;
}

async function callForText(bus: Dbus, call: DbusCall): Promise<string> {
  return z.string().parse((await bus.call(call))[0]);
}
