import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { resolveOnNode } from '../node-root.ts';
import { type Dbus, DbusError, withBus } from './dbus.ts';
import type { DbusValue } from './dbus-message.ts';

/** Where the bus of a machine listens (D-Bus specification, "Well-known Message Bus Instances"). */
export const BUS_SOCKET = '/run/dbus/system_bus_socket';
const SYSTEMD = 'org.freedesktop.systemd1';
const MANAGER = {
  destination: SYSTEMD,
  path: '/org/freedesktop/systemd1',
  interface: `${SYSTEMD}.Manager`,
} as const;

const LOOK_MS = 100;

/** Has the use of the bus of a node, on which its systemd is. @throws Error when nothing there answers. */
export async function withNodeBus<T>(root: string, use: (bus: Dbus) => Promise<T>): Promise<T> {
  return withBus(await resolveOnNode(root, BUS_SOCKET), use);
}

/** Has systemd do something with units, and returns the path that it answers with: of a unit, or of a job. */
export async function askManager(
  bus: Dbus,
  member: string,
  signature: string,
  body: readonly DbusValue[],
): Promise<string> {
  return z.string().parse((await bus.call({ ...MANAGER, member, signature, body }))[0]);
}

/** A unit is not failed any more, so that nothing keeps it loaded. */
export async function resetFailed(bus: Dbus, name: string): Promise<void> {
  await bus.call({ ...MANAGER, member: 'ResetFailedUnit', signature: 's', body: [name] });
}

/** The path of a unit. Units that do not run may have no object until they are asked for. */
export function pathOfUnit(bus: Dbus, name: string): Promise<string> {
  return askManager(bus, 'LoadUnit', 's', [name]);
}

/** What an object of systemd says of itself. */
export async function property(
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

/** Waits until a job is done, well or not. @throws Error when it is not after so many milliseconds. */
export async function untilDone(
  bus: Dbus,
  job: string,
  {
    what,
    patienceMs,
    signal,
  }: { readonly what: string; readonly patienceMs: number; readonly signal?: AbortSignal },
): Promise<void> {
  const until = performance.now() + patienceMs;
  while (await isThere(bus, job)) {
    if (performance.now() > until) throw new Error(`${what} did not end within ${patienceMs / 1000} s`);
    await setTimeout(LOOK_MS, undefined, signal === undefined ? {} : { signal });
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
