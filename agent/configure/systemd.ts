import * as z from 'zod';
import { messageOf } from '../../process/file-problem.ts';
import type { HostProcess } from '../runtimes/host-processes.ts';
import { Refusal } from './refusal.ts';
import type { Restarter } from './restarter.ts';
import { askManager, BUS_SOCKET, pathOfUnit, property, untilDone, withNodeBus } from './systemd-bus.ts';

/** By which a restart leaves containers alone (systemd.kill(5)). */
const GENTLE = ['process', 'none'];

/** systemd itself gives up a start after 90 s, unless the unit says otherwise. */
const PATIENCE_MS = 180_000;

/**
 * The unit of systemd that a process is the main one of, asked over the node's bus.
 *
 * @throws Refusal when there is none, or its restart would end more than the process.
 */
export async function findUnit(root: string, { pid }: HostProcess): Promise<Restarter> {
  const remedy = 'Set config_path by hand and restart containerd as this machine does it.';
  try {
    return await withNodeBus(root, async (bus) => {
      const path = await askManager(bus, 'GetUnitByPID', 'u', [pid]);
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
      return unitOf(root, name);
    });
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`systemd does not answer on ${BUS_SOCKET}: ${messageOf(error)}`, remedy, {
      cause: error,
    });
  }
}

/** A unit that was found before. */
export function unitOf(root: string, name: string): Restarter {
  return new Unit(root, name);
}

class Unit implements Restarter {
  readonly name: string;
  readonly isByItself = false;
  readonly #root: string;

  constructor(root: string, name: string) {
    this.#root = root;
    this.name = name;
  }

  async run(): Promise<string | undefined> {
    return withNodeBus(this.#root, async (bus) => {
      const path = await pathOfUnit(bus, this.name);
      const state = await property(bus, path, 'Unit', 'ActiveState');
      if (state !== 'active') return undefined;
      const id = z.array(z.number()).parse(await property(bus, path, 'Unit', 'InvocationID'));
      return Buffer.from(id).toString('hex');
    });
  }

  async restart(_: string | undefined, signal: AbortSignal): Promise<void> {
    await withNodeBus(this.#root, async (bus) => {
      const job = await askManager(bus, 'RestartUnit', 'ss', [this.name, 'replace']);
      await untilDone(bus, job, { what: `the restart of ${this.name}`, patienceMs: PATIENCE_MS, signal });
      const path = await pathOfUnit(bus, this.name);
      const state = await property(bus, path, 'Unit', 'ActiveState');
      const result = await property(bus, path, 'Service', 'Result');
      if (state !== 'active')
        throw new Error(
          `${this.name} is ${String(state)} after its restart (${String(result)}): journalctl -u ${this.name} says why`,
        );
    });
  }
}
