import * as z from 'zod';
import { type Dbus, DbusError } from './dbus.ts';
import type { DbusValue } from './dbus-message.ts';
import { askManager, pathOfUnit, property, resetFailed, untilDone } from './systemd-bus.ts';

/** A program that systemd runs once, in a unit that is there for it alone. Paths are the node's own. */
export interface TransientUnit {
  readonly name: string;
  readonly description: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Files that are there, and empty: what it writes goes into them. */
  readonly stdout: string;
  readonly stderr: string;
  readonly timeoutMs: number;
}

/** How a program ended. */
export interface Ending {
  /** `success`, `exit-code`, `timeout` (systemd.exec(5), `$SERVICE_RESULT`). */
  readonly result: string;
  readonly status: number;
}

/** Until a program that had its time, and is told to end, is killed. */
const STOP_MS = 5_000;
const STARTING_MS = 10_000;

/**
 * Has systemd run a program, and waits for its end. Nothing of the unit stays; what a former run of the same name left is
 * ended first.
 *
 * @throws Error when systemd does not run it, or somebody else ended it.
 */
export async function runTransientUnit(bus: Dbus, unit: TransientUnit, signal: AbortSignal): Promise<Ending> {
  const { name, timeoutMs } = unit;
  await clearTransientUnit(bus, name);
  try {
    const body = [name, 'fail', propertiesOf(unit), []];
    const job = await askManager(bus, 'StartTransientUnit', 'ssa(sv)a(sa(sv))', body);
    const patienceMs = timeoutMs + STOP_MS + STARTING_MS;
    await untilDone(bus, job, { what: name, patienceMs, signal });
    const path = await pathOfUnit(bus, name);
    const state = await property(bus, path, 'Unit', 'ActiveState');
    const result = z.string().parse(await property(bus, path, 'Service', 'Result'));
    const status = z.number().parse(await property(bus, path, 'Service', 'ExecMainStatus'));
    if (result === 'success' && state !== 'active')
      throw new Error(`${name} was ended by somebody (${String(state)})`);
    return { result, status };
  } finally {
    // Whatever ended it is what is told; a unit that is left is harmless, and cleared before the next.
    await clearTransientUnit(bus, name).catch(() => undefined);
  }
}

/** Ends a unit that is still there, and has systemd forget it. Harmless where there is none. */
export async function clearTransientUnit(bus: Dbus, name: string): Promise<void> {
  await unlessAbsent(async () => {
    const job = await askManager(bus, 'StopUnit', 'ss', [name, 'replace']);
    await untilDone(bus, job, { what: `the end of ${name}`, patienceMs: STOP_MS + STARTING_MS });
  });
  await unlessAbsent(() => resetFailed(bus, name));
}

/** Nothing that systemd 239 (RHEL 8) does not know, since it would refuse the whole unit. */
function propertiesOf({
  description,
  program,
  args,
  stdout,
  stderr,
  timeoutMs,
}: TransientUnit): readonly DbusValue[] {
  return [
    setting('Description', 's', description),
    // It waits for nothing else, and starts nothing else.
    setting('DefaultDependencies', 'b', false),
    setting('Type', 's', 'oneshot'),
    // How it ended is to be read.
    setting('RemainAfterExit', 'b', true),
    setting('TimeoutStartUSec', 't', timeoutMs * 1000),
    setting('TimeoutStopUSec', 't', STOP_MS * 1000),
    setting('StandardOutputFile', 's', stdout),
    setting('StandardErrorFile', 's', stderr),
    setting('ExecStart', 'a(sasb)', [[program, [program, ...args], false]]),
  ];
}

function setting(name: string, type: string, value: DbusValue): DbusValue {
  return [name, { type, value }];
}

async function unlessAbsent(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof DbusError) || error.code !== 'org.freedesktop.systemd1.NoSuchUnit') throw error;
  }
}
