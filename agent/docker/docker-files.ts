import { stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { routeFor } from '../../config/routing.ts';
import { DOCKER_HUB } from '../../oci/host.ts';
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
import { hangUpBelow, type SendHangUp } from '../hang-up.ts';
import { type Memory, MemoryFile } from '../memory.ts';
import { withNodeLock } from '../node-lock.ts';
import { pathOnNode, resolveOnNode } from '../node-root.ts';
import { idOf, type Original, removeOriginal, restoreOriginal, saveOriginal } from '../original.ts';
import { RestoreFailure } from '../restore-failure.ts';
import type { Outcome, RuntimeFiles, Wanted } from '../runtime-files.ts';
import { viewNode } from '../runtimes/node-view.ts';
import type { NodePlace } from '../state.ts';
import { findBasis } from './basis.ts';
import { isSame, mirrorsOf, withMirror, withNoMirrors } from './daemon-json.ts';
import { DAEMON_JSON, Dockerd, type DockerdOptions } from './dockerd.ts';
import { unknownMirror } from './unknown-mirror.ts';

export interface DockerOptions extends NodePlace, Omit<DockerdOptions, 'root' | 'send'> {
  /** How `dockerd` is told to read its file again; by default with a SIGHUP. */
  readonly signal?: SendHangUp;
}

/** Docker, by `registry-mirrors` of its daemon.json: for Docker Hub, and for nothing else. */
export class DockerFiles implements RuntimeFiles {
  readonly directories = [dirname(DAEMON_JSON)];
  readonly #place: NodePlace & { readonly root: string };
  readonly #dockerd: Dockerd;

  constructor({ root: given = '/', stateDir, log, signal, ...dockerd }: DockerOptions) {
    const root = resolve(given);
    this.#place = { root, stateDir, log };
    this.#dockerd = new Dockerd({ ...dockerd, root, send: signal ?? hangUpBelow(root) });
  }

  apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
    return withNodeLock(this.#place, () => this.#apply(wanted, signal), signal);
  }

  restore(): Promise<readonly Change[]> {
    return withNodeLock(this.#place, async () => (await this.#restoreAll()) ?? (await this.#leaveUnknown()));
  }

  async #apply(wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
    const { config } = wanted;
    const states = new Map<string, HostState>();
    for (const host of config.enabled ? config.upstreams.keys() : [])
      states.set(host, { kind: 'unsupported', reason: othersReason(host), code: 'docker-hub-only' });
    const url = await mirrorFor(wanted, this.#place.root);
    const sight = await this.#dockerd.look();
    let changes: readonly Change[] = [];
    if (typeof url !== 'string' || sight.kind === 'unfit') {
      const state = typeof url === 'string' && sight.kind === 'unfit' ? unsupported(sight.reason) : url;
      if (typeof state === 'object') states.set(DOCKER_HUB, state);
      changes = (await this.#restoreAll()) ?? [];
    } else {
      const done = await this.#write(sight.file, url, signal);
      states.set(DOCKER_HUB, done.state);
      if (done.change !== undefined)
        changes = [this.#changeOf(sight.file, done.change.kind, done.change.reason)];
    }
    // The canary has a host of its own, which Docker asks no mirror for.
    return { changes, states, canary: undefined, failures: [] };
  }

  /** @returns `undefined` where nothing is remembered. */
  async #restoreAll(): Promise<readonly Change[] | undefined> {
    try {
      return await this.#restore();
    } catch (error) {
      throw new RestoreFailure([error], []);
    }
  }

  async #restore(): Promise<readonly Change[] | undefined> {
    const memoryFile = await MemoryFile.open(this.#place, 'docker');
    const memory = await memoryFile.load(this.#place.log);
    if (memory === undefined) {
      await memoryFile.forget();
      return undefined;
    }
    const { path, disk } = await this.#look(memory.file);
    const change = await this.#bringBack(memoryFile, memory, path, disk);
    for (const directory of memory.made.toReversed()) await removeIfEmpty(join(this.#place.root, directory));
    await memoryFile.forget();
    return change === undefined ? [] : [change];
  }

  async #leaveUnknown(): Promise<readonly Change[]> {
    const sight = await this.#dockerd.look();
    const file = sight.kind === 'runs' ? sight.file : DAEMON_JSON;
    try {
      const { disk } = await this.#look(file);
      const reason = unknownMirror(disk);
      return reason === undefined ? [] : [this.#changeOf(file, 'left', reason)];
    } catch (error) {
      // Nothing that we wrote looks like this.
      this.#place.log.debug({ err: error, file }, 'a daemon.json is passed over');
      return [];
    }
  }

  async #look(file: string): Promise<{ path: string; disk: DiskFile }> {
    const { root } = this.#place;
    // The file may be a link, which is replaced; its directory is followed.
    const path = join(await resolveOnNode(root, dirname(file)), file.slice(dirname(file).length));
    await clearLeftovers(dirname(path));
    return { path, disk: await readDiskFile(path, root) };
  }

  async #write(file: string, url: string, signal?: AbortSignal): Promise<Done> {
    const memoryFile = await MemoryFile.open(this.#place, 'docker');
    const known = await memoryFile.load(this.#place.log);
    if (known !== undefined && known.file !== file) await this.#restoreAll();
    const memory = known?.file === file ? known : undefined;
    const { path, disk } = await this.#look(file);
    if (disk.kind === 'file' && !disk.isUtf8) return left(file, 'not UTF-8');
    let base: Original | undefined;
    let text: string;
    try {
      base = await findBasis(memoryFile, memory, disk);
      text = withMirror(base?.text ?? '', url);
    } catch (error) {
      return left(file, messageOf(error));
    }
    // Somebody else has named it: it is theirs.
    if (text === base?.text && memory === undefined) return { state: CONFIGURED };
    const missing = await missingDirectories(dirname(path));
    const made = [...(memory?.made ?? []), ...missing.map((one) => pathOnNode(this.#place.root, one))];
    const original = base === undefined ? undefined : idOf(base);
    const replaced = disk.kind === 'file' ? disk.text : undefined;
    // Before the file: cut off at any point, what we know is enough to finish or to go back.
    if (base !== undefined && original !== memory?.original) await saveOriginal(memoryFile.originals, base);
    if (memory?.written !== text || original !== memory.original || missing.length > 0)
      await memoryFile.save({
        file,
        written: text,
        replaced,
        mirror: url,
        original,
        made: [...new Set(made)],
      });
    const isDone = disk.kind === 'file' && disk.text === text && disk.link === undefined;
    if (!isDone) {
      await makeDirectory(dirname(path));
      await replaceFile(
        path,
        text,
        base === undefined ? {} : { mode: base.mode, uid: base.uid, gid: base.gid },
      );
    }
    if (memory?.original !== undefined && memory.original !== original)
      await removeOriginal(memoryFile.originals, memory.original);
    const problem = await this.#reload(path, (mirrors) => mirrors.some((one) => isSame(one, url)), signal);
    const state =
      problem === undefined ? CONFIGURED : notReloaded(`${file} is written, but ${problem}. ${REMEDY}`);
    const isHealed = memory?.written === text;
    return { state, ...(isDone ? {} : { change: { kind: isHealed ? 'healed' : 'written' } }) };
  }

  /** The key alone going out of the file would leave dockerd with the mirror: an empty list goes before. */
  async #bringBack(
    memoryFile: MemoryFile,
    memory: Memory,
    path: string,
    disk: DiskFile,
  ): Promise<Change | undefined> {
    const { file, mirror, written, replaced } = memory;
    const target = await findBasis(memoryFile, memory, disk);
    const now = disk.kind === 'file' ? disk.text : undefined;
    const names = target === undefined ? undefined : mirrorsOf(target.text);
    const isOurs = (one: string): boolean => isSame(one, mirror);
    const isAway = (mirrors: readonly string[]): boolean => !mirrors.some(isOurs);
    const isAsked = (await this.#dockerd.mirrors())?.some(isOurs) ?? now !== target?.text;
    const original = target === undefined ? undefined : idOf(target);
    if (target !== undefined && original !== memory.original)
      await saveOriginal(memoryFile.originals, target);
    let problem: string | undefined;
    if (isAsked && names === undefined && (await this.#isReachable(path))) {
      const empty = withNoMirrors(target?.text ?? '');
      await memoryFile.save({ ...memory, written: empty, replaced: now, original });
      await replaceFile(path, empty, disk.kind === 'file' ? disk.access : {});
      problem = await this.#reload(path, isAway);
      if (target === undefined) await removeFile(path);
      else await restoreOriginal(path, target);
    } else if (now !== target?.text) {
      if (target === undefined) await removeFile(path);
      else await restoreOriginal(path, target);
      if (names !== undefined && isAway(names)) problem = await this.#reload(path, isAway);
    }
    if (now === target?.text) return undefined;
    const notes = [
      ...([written, replaced].includes(now) ? [] : ['our mirror was taken out, the rest left as it is']),
      ...(problem === undefined ? [] : [`dockerd asks it until its next start: ${problem}`]),
    ];
    return this.#changeOf(file, target === undefined ? 'removed' : 'restored', notes.join('; ') || undefined);
  }

  /** Whether there is a dockerd to tell of a file in this directory, and the directory. */
  async #isReachable(path: string): Promise<boolean> {
    const isThere = (await missingDirectories(dirname(path))).length === 0;
    return isThere && (await this.#dockerd.look()).kind === 'runs';
  }

  async #reload(
    path: string,
    holds: (mirrors: readonly string[]) => boolean,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    return this.#dockerd.reload((await stat(path)).mtimeMs, holds, signal);
  }

  #changeOf(file: string, kind: Change['kind'], reason?: string): Change {
    const path = join(this.#place.root, file);
    return { kind, host: DOCKER_HUB, file: path, ...(reason === undefined ? {} : { reason }) };
  }
}

const CONFIGURED: HostState = { kind: 'configured' };
const REMEDY =
  "dockerd reads it at its next start or SIGHUP. Let the agent see the node's processes (hostPID), so that it can send one.";

interface Done {
  readonly state: HostState;
  readonly change?: Pick<Change, 'kind' | 'reason'>;
}

function notReloaded(reason: string): HostState {
  return { kind: 'unsupported', reason, code: 'not-reloaded' };
}

function unsupported(reason: string): HostState {
  return { kind: 'unsupported', reason };
}

function othersReason(host: string): string {
  return `Docker has mirrors for ${DOCKER_HUB} alone: only the webhook can send its pulls of ${host} to weir`;
}

/** The mirror as daemon.json names it; a state when Docker cannot ask it; `undefined` when it is to have none. */
async function mirrorFor(
  { config, mirror, mirrorCa }: Wanted,
  root: string,
): Promise<string | HostState | undefined> {
  const route = routeFor(config, DOCKER_HUB);
  if (route.kind === 'untouched') return undefined;
  const { origin, pathname } =
    route.kind === 'node'
      ? { origin: route.mirror.origin, pathname: route.mirror.repositoryPrefix }
      : new URL(mirror);
  if (!/^\/?$/.test(pathname))
    return unsupported(`Docker takes a mirror without a path only, and ${origin} has ${pathname}`);
  if (route.kind === 'node' || mirrorCa === undefined || (await hasAuthority(root, origin))) return origin;
  return unsupported(
    `weir cannot tell Docker of the authority that signs ${origin}: put it into ${authorityDirectory(origin)}/ca.crt`,
  );
}

/** Where dockerd looks, besides what the system trusts (Docker's manual, "Verify repository client with certificates"). */
function authorityDirectory(origin: string): string {
  return `/etc/docker/certs.d/${new URL(origin).host}`;
}

async function hasAuthority(root: string, origin: string): Promise<boolean> {
  const names = await viewNode(root).names(authorityDirectory(origin));
  return names.some((name) => name.endsWith('.crt'));
}

function left(file: string, why: string): Done {
  const reason = `${file} cannot be merged, because weir cannot read it: ${why}. Correct or remove it.`;
  return { state: { kind: 'unparsable', reason }, change: { kind: 'left', reason } };
}
