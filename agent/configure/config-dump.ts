import { basename, isAbsolute, join } from 'node:path';
import * as z from 'zod';
import { makeDirectory, removeFile, removeIfEmpty, replaceFile } from '../../process/durable-file.ts';
import type { HostProcess } from '../runtimes/host-processes.ts';
import type { NodeSight } from '../runtimes/node-sight.ts';
import { viewNode } from '../runtimes/node-view.ts';
import { configFlagOf, findContainerd } from './containerd-process.ts';
import { type Dbus, DbusError } from './dbus.ts';
import { askManager, property, withNodeBus } from './systemd-bus.ts';
import { clearTransientUnit, type Ending, runTransientUnit } from './transient-unit.ts';

/**
 * What containerd makes of its files as they are.
 *
 * @throws UnacceptedError when it does not start with them.
 * @throws Error when it cannot be asked.
 */
export type AskConfigDump = (signal: AbortSignal) => Promise<string>;

/** containerd was asked, and does not start with its files as they are. */
export class UnacceptedError extends Error {}

/** The directory of a node, as it knows it, in which the answers are for a moment. */
export interface DumpPlace {
  readonly root: string;
  readonly folder: string;
}

const UNIT = 'weir-config-dump.service';
const STDOUT = 'config-dump.out';
const STDERR = 'config-dump.err';
/** It takes a tenth of a second, on a node that is not busy. */
const TIMEOUT_MS = 30_000;
/** What a containerd reads that was told of no file, in 1.x and in 2.x. */
const DEFAULT_FILE = '/etc/containerd/config.toml';
/** What 1.x wants of a file that is not there. */
const NO_FILE = '/dev/null';
/** From here on it is systemd that ended a program, or did not start it (systemd.exec(5), "Process Exit Codes"). */
const FIRST_OF_SYSTEMD = 200;
const MAX_LINE = 500;

/**
 * Has the node's systemd run the node's own `containerd config dump`, as root, in a unit for it alone, and reads what that
 * says. The program is the one that a restart would start, and its file the one that such a one would read.
 */
export async function dumpConfig(
  { root, folder, sight }: DumpPlace & { readonly sight: NodeSight },
  signal: AbortSignal,
): Promise<string> {
  const containerd = await findContainerd(root, sight);
  const view = viewNode(root);
  const [stdout, stderr] = [join(folder, STDOUT), join(folder, STDERR)];
  try {
    await makeDirectory(join(root, folder), 0o700);
    // Both are there whenever the unit may be.
    for (const path of [stdout, stderr]) await replaceFile(join(root, path), '', { mode: 0o600 });
    const ending = await withNodeBus(root, async (bus) => {
      const program = await programOf(bus, containerd);
      const args = [...(await fileArgs(containerd, view.exists)), 'config', 'dump'];
      const description = 'containerd config dump, for weir';
      const unit = { name: UNIT, description, program, args, stdout, stderr, timeoutMs: TIMEOUT_MS };
      return runTransientUnit(bus, unit, signal);
    });
    const said = (await view.file(stdout))?.text ?? '';
    if (ending.result !== 'success') throw problemOf(ending, (await view.file(stderr))?.text ?? '');
    if (said.trim() === '') throw new Error(`${UNIT} ended well, and ${stdout} has nothing in it`);
    return said;
  } finally {
    await removeAnswers({ root, folder });
  }
}

/** Clears what a killed agent left of a dump: its files, and the unit, where systemd can be told. */
export async function clearDump({ root, folder }: DumpPlace): Promise<void> {
  const names = await viewNode(root).names(folder);
  if (![STDOUT, STDERR].some((name) => names.includes(name))) return;
  // No program runs in it for long, and the next dump ends it before its own.
  await withNodeBus(root, (bus) => clearTransientUnit(bus, UNIT)).catch(() => undefined);
  await removeAnswers({ root, folder });
}

async function removeAnswers({ root, folder }: DumpPlace): Promise<void> {
  for (const name of [STDOUT, STDERR]) await removeFile(join(root, folder, name));
  await removeIfEmpty(join(root, folder));
}

function problemOf({ result, status }: Ending, stderr: string): Error {
  const line = stderr.trim().split('\n').at(-1)?.slice(0, MAX_LINE) ?? '';
  if (result === 'exit-code' && status < FIRST_OF_SYSTEMD)
    return new UnacceptedError(line === '' ? `it ends with status ${status}` : line);
  const ended = [`${UNIT} ended with "${result}" (status ${status})`, line].filter((one) => one !== '');
  return new Error(ended.join(': '));
}

const commandsSchema = z.array(z.tuple([z.string()]).rest(z.unknown()));

async function programOf(bus: Dbus, containerd: HostProcess): Promise<string> {
  const [program = ''] = containerd.args;
  const found = [...(await startedBy(bus, containerd)), program].find(
    (path) => isAbsolute(path) && basename(path) === 'containerd',
  );
  if (found === undefined)
    throw new Error(`where the program of containerd (process ${containerd.pid}) is cannot be told`);
  return found;
}

/** What its unit starts: after an upgrade it may be another program than the one that runs. */
async function startedBy(bus: Dbus, { pid }: HostProcess): Promise<readonly string[]> {
  try {
    const unit = await askManager(bus, 'GetUnitByPID', 'u', [pid]);
    const commands = commandsSchema.parse(await property(bus, unit, 'Service', 'ExecStart'));
    return commands.map(([path]) => path);
  } catch (error) {
    // It is of no service.
    if (error instanceof DbusError) return [];
    throw error;
  }
}

async function fileArgs(
  containerd: HostProcess,
  exists: (path: string) => Promise<boolean>,
): Promise<readonly string[]> {
  const flag = configFlagOf(containerd);
  if (!(await exists(flag ?? DEFAULT_FILE))) return ['--config', NO_FILE];
  return flag === undefined ? [] : ['--config', flag];
}
