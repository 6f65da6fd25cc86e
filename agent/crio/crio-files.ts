import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { CANARY_HOST } from '../../oci/canary.ts';
import {
  clearLeftovers,
  makeDirectory,
  missingDirectories,
  removeFile,
  removeIfEmpty,
  replaceFile,
} from '../../process/durable-file.ts';
import { messageOf } from '../../process/file-problem.ts';
import type { Change, HostState } from '../change.ts';
import { type DiskFile, readDiskFile } from '../disk-file.ts';
import { hangUpBelow, Reloader, type SendHangUp } from '../hang-up.ts';
import { type Memory, MemoryFile } from '../memory.ts';
import { withNodeLock } from '../node-lock.ts';
import { pathOnNode } from '../node-root.ts';
import { RestoreFailure } from '../restore-failure.ts';
import type { Outcome, RuntimeFiles, Wanted } from '../runtime-files.ts';
import { type NodeView, viewNode } from '../runtimes/node-view.ts';
import type { NodePlace } from '../state.ts';
import { reloadsByItself } from './auto-reload.ts';
import { type DropIn, formatDropIn, planDropIn } from './drop-in.ts';
import { judgeDropIn, markDropIn, mirrorIn } from './drop-in-marker.ts';
import { endpointLocation } from './location.ts';
import { parseRegistries } from './registries-conf.ts';
import { DROP_INS, readUserRegistries, UnreadableRegistriesError } from './user-registries.ts';
import { withoutMirror } from './without-mirror.ts';

export interface CrioOptions extends NodePlace {
  /** How `crio` is told to read its files again; by default with a SIGHUP. */
  readonly signal?: SendHangUp;
  /** See {@link Reloader}. */
  readonly settle?: number;
}

/** Behind all others, whose entries for the same registry it would otherwise be replaced by. */
const NAME = 'zzz-weir.conf';
const FILE = join(DROP_INS, NAME);

/** CRI-O, by one drop-in of registries.conf, which Podman, Buildah and skopeo on that node read as well. */
export class CrioFiles implements RuntimeFiles {
  readonly directories = [dirname(DROP_INS)];
  readonly #place: NodePlace & { readonly root: string };
  readonly #view: NodeView;
  readonly #log: Logger;
  readonly #reloader: Reloader;

  constructor({ root: given = '/', signal, settle, ...place }: CrioOptions) {
    const root = resolve(given);
    this.#place = { ...place, root };
    this.#view = viewNode(root);
    this.#log = place.log;
    this.#reloader = new Reloader({
      root,
      name: 'crio',
      send: signal ?? hangUpBelow(root),
      ...(settle === undefined ? {} : { settle }),
    });
  }

  apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
    return withNodeLock(this.#place, () => this.#apply(wanted, signal), signal);
  }

  restore(): Promise<readonly Change[]> {
    return withNodeLock(this.#place, () => this.#restoreAll());
  }

  async #apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
    const plan = await this.#plan(wanted);
    const { entries, states, canary } = plan;
    if (plan.isUnreadable === true && states.size > 0) return { changes: [], states, canary, failures: [] };
    if (entries.length === 0) return { changes: await this.#restoreAll(), states, canary, failures: [] };
    const mirror = endpointLocation({ origin: new URL(wanted.mirror).origin, repositoryPrefix: '' }).location;
    const text = markDropIn(formatDropIn(entries), mirror);
    const done = await this.#write(text, mirror);
    const hosts = entries.map(({ prefix }) => prefix).filter((prefix) => prefix !== CANARY_HOST);
    const changes = done.kind === undefined ? [] : this.#changesOf(hosts, done.kind, done.reason);
    const state =
      done.kind === 'left' ? overridden(done.reason) : await this.#stateOfReload(done.path, signal);
    return { changes, ...withState({ states, canary }, state), failures: [] };
  }

  async #restoreAll(): Promise<readonly Change[]> {
    try {
      return await this.#restore();
    } catch (error) {
      throw new RestoreFailure([error], []);
    }
  }

  /** Says nothing at all first, so that a CRI-O that is told of it asks the mirror no more, whatever comes then. */
  async #restore(): Promise<readonly Change[]> {
    const { memoryFile, memory, path, disk } = await this.#look();
    const verdict = disk.kind === 'file' ? judgeDropIn(disk, memory?.written) : undefined;
    const known = disk.kind === 'file' ? mirrorIn(disk.text) : undefined;
    const mirror = memory?.mirror ?? known;
    if (memory === undefined && (disk.kind === 'absent' || mirror === undefined)) {
      await memoryFile.forget();
      return [];
    }
    const hosts = hostsIn(memory?.written ?? (disk.kind === 'file' ? disk.text : ''));
    let changes: readonly Change[] = [];
    if (disk.kind === 'file' && verdict?.kind === 'theirs') {
      const rest = mirror === undefined ? disk.text : withoutMirror(disk.text, mirror, memory?.written);
      if (rest !== undefined && rest !== disk.text) {
        await replaceFile(path, rest, disk.access);
        changes = this.#changesOf(hosts, 'restored', 'our mirror was taken out, the rest left as it is');
      }
      if (rest === undefined) changes = await this.#remove(path, hosts, memoryFile, memory);
      else await this.#reload(path);
    } else if (disk.kind === 'file') changes = await this.#remove(path, hosts, memoryFile, memory);
    // Somebody removed it, and CRI-O may not know.
    else await this.#reloader.reload(Date.now());
    for (const directory of (memory?.made ?? []).toReversed())
      await removeIfEmpty(join(this.#place.root, directory));
    await memoryFile.forget();
    return changes;
  }

  async #plan(wanted: Wanted): Promise<DropIn & { readonly isUnreadable?: true }> {
    try {
      return planDropIn(wanted, await readUserRegistries(this.#view, NAME));
    } catch (error) {
      if (!(error instanceof UnreadableRegistriesError)) throw error;
      return { ...allAre({ kind: 'unparsable', reason: error.message }, wanted), isUnreadable: true };
    }
  }

  async #look(): Promise<{
    memoryFile: MemoryFile;
    memory: Memory | undefined;
    path: string;
    disk: DiskFile;
  }> {
    const memoryFile = await MemoryFile.open(this.#place, 'crio');
    const memory = await memoryFile.load(this.#log);
    // The directory may be a link on the node; the file itself is replaced, whatever it is.
    const path = join(await this.#view.here(DROP_INS), NAME);
    await clearLeftovers(dirname(path));
    return { memoryFile, memory, path, disk: await readDiskFile(path, this.#place.root) };
  }

  async #write(text: string, mirror: string): Promise<Done> {
    const { memoryFile, memory, path, disk } = await this.#look();
    const verdict = disk.kind === 'file' ? judgeDropIn(disk, memory?.written) : undefined;
    if (verdict?.kind === 'theirs')
      return { kind: 'left', path, reason: `${FILE} ${verdict.reason}. Remove it to have it from weir.` };
    const missing = await missingDirectories(dirname(path));
    const made = [...(memory?.made ?? []), ...missing.map((one) => pathOnNode(this.#place.root, one))];
    // Before the file: cut off at any point, what we know is enough to finish or to go back.
    if (memory?.written !== text || missing.length > 0)
      await memoryFile.save({ file: FILE, written: text, mirror, made: [...new Set(made)] });
    if (disk.kind === 'file' && disk.text === text) return { kind: undefined, path };
    await makeDirectory(dirname(path));
    await replaceFile(path, text);
    const isHealed = verdict?.kind === 'damaged' || (disk.kind === 'absent' && memory?.written === text);
    return { kind: isHealed ? 'healed' : 'written', path };
  }

  async #remove(
    path: string,
    hosts: readonly string[],
    memoryFile: MemoryFile,
    memory: Memory | undefined,
  ): Promise<readonly Change[]> {
    const empty = markDropIn('', memory?.mirror ?? '');
    if (memory !== undefined) await memoryFile.save({ ...memory, written: empty });
    await replaceFile(path, empty);
    const problem = await this.#reload(path);
    await removeFile(path);
    return this.#changesOf(hosts, 'removed', problem && `CRI-O goes by it until its next start: ${problem}`);
  }

  async #reload(path: string, signal?: AbortSignal): Promise<string | undefined> {
    const problem = await this.#reloader.reload((await stat(path)).mtimeMs, signal);
    return problem !== undefined && (await reloadsByItself(this.#view)) ? undefined : problem;
  }

  async #stateOfReload(path: string, signal?: AbortSignal): Promise<HostState> {
    const problem = await this.#reload(path, signal);
    if (problem === undefined) return { kind: 'configured' };
    const remedy =
      "CRI-O reads it at its next start or SIGHUP. Let the agent see the node's processes (hostPID), or set auto_reload_registries for CRI-O";
    return {
      kind: 'unsupported',
      reason: `${FILE} is written, but ${problem}. ${remedy}.`,
      code: 'not-reloaded',
    };
  }

  #changesOf(hosts: readonly string[], kind: Change['kind'], reason?: string): readonly Change[] {
    const file = join(this.#place.root, FILE);
    return hosts.map((host) => ({ kind, host, file, ...(reason === undefined ? {} : { reason }) }));
  }
}

type Done =
  | { readonly kind: 'left'; readonly path: string; readonly reason: string }
  | { readonly kind: 'written' | 'healed' | undefined; readonly path: string; readonly reason?: undefined };

/** The registries that a text of ours is about. */
function hostsIn(text: string): readonly string[] {
  try {
    return [...parseRegistries(text, 'drop-in').keys()].filter((host) => host !== CANARY_HOST);
  } catch (error) {
    return [`${basename(FILE)} (${messageOf(error)})`];
  }
}

function overridden(reason: string): HostState {
  return { kind: 'overridden', reason };
}

/** Those that were to be configured are as their file is. */
function withState(
  { states, canary }: Pick<Outcome, 'states' | 'canary'>,
  state: HostState,
): Pick<Outcome, 'states' | 'canary'> {
  return {
    states: new Map([...states].map(([host, one]) => [host, one.kind === 'configured' ? state : one])),
    // As long as its entry is there, a proof tells more than we know of what was read.
    canary: canary?.kind === 'configured' && state.kind === 'overridden' ? state : canary,
  };
}

function allAre(state: HostState, { config, canary }: Wanted): DropIn {
  const hosts = config.enabled ? [...config.upstreams.keys()] : [];
  return {
    entries: [],
    states: new Map(hosts.map((host) => [host, state])),
    canary: canary === true && hosts.length > 0 ? state : undefined,
  };
}
