import { basename } from 'node:path';
import { type Route, routeFor } from '../config/routing.ts';
import { CANARY_HOST } from '../oci/canary.ts';
import {
  clearLeftovers,
  makeDirectoryWith,
  missingDirectories,
  replaceFile,
} from '../process/durable-file.ts';
import { messageOf } from '../process/file-problem.ts';
import { findBasis } from './basis.ts';
import { CANARY_ROUTE } from './canary-route.ts';
import { UnrepeatableError } from './carried-hosts.ts';
import type { Change, HostState } from './change.ts';
import { readDiskFile } from './disk-file.ts';
import { GENERATED, generatorProblem } from './generator.ts';
import { directoryNames, findHostDirectory, type HostDirectory } from './host-directory.ts';
import { EMPTY_HOSTS_FILE } from './hosts-file.ts';
import { renderHosts } from './hosts-toml.ts';
import { judge, markerOf } from './marker.ts';
import { MIRROR_CA_PATH, writeMirrorCa } from './mirror-ca.ts';
import { withNodeLock } from './node-lock.ts';
import { pathOnNode } from './node-root.ts';
import { removeOriginalsOf, saveOriginal } from './original.ts';
import { failedBy } from './reason-code.ts';
import { restoreOthers } from './rollback.ts';
import type { Outcome, Wanted } from './runtime-files.ts';
import { openState, type Place, type Settled, type State, settle } from './state.ts';

/**
 * Brings the certificates directory to what the configuration says: a file of ours for every host that goes through
 * a mirror, and what was there before weir for all others. A second run changes nothing. What fails for one host is
 * among the outcome's failures and stops no other.
 *
 * @throws Error when the state directory or the certificates directory cannot be read at all.
 */
export async function applyConfig(given: Place, wanted: Wanted, signal?: AbortSignal): Promise<Outcome> {
  const place = await settle(given);
  return withNodeLock(place, () => applyLocked(place, wanted, signal), signal);
}

async function applyLocked(
  place: Settled,
  wanted: Wanted,
  signal: AbortSignal | undefined,
): Promise<Outcome> {
  const work: Work = { ...place, ...wanted, state: await openState(place) };
  const changes: Change[] = [];
  const states = new Map<string, HostState>();
  const failures: Error[] = [];
  const keep = new Set<string>();
  const outcome = (): Outcome => {
    const upstreams = new Map(states);
    const isCanary = wanted.canary === true && upstreams.delete(CANARY_HOST);
    return { changes, states: upstreams, canary: isCanary ? states.get(CANARY_HOST) : undefined, failures };
  };
  const routes = routesOf(wanted);
  if (wanted.mirrorCa !== undefined && routes.length > 0) await writeMirrorCa(work, wanted.mirrorCa);
  for (const route of routes) {
    const { host } = route;
    // Cut short, it must not take the hosts that it did not come to for former ones.
    if (signal?.aborted === true) return outcome();
    try {
      const directory = await findHostDirectory(place.certsDir, host);
      keep.add(directory.name);
      const { state, change } = await applyRoute(work, route, directory);
      states.set(host, state);
      if (change !== undefined) changes.push({ host, file: directory.file, ...change });
    } catch (error) {
      for (const name of directoryNames(host)) keep.add(name);
      states.set(host, failedBy(error, messageOf(error)));
      failures.push(new Error(`${host}: ${messageOf(error)}`, { cause: error }));
    }
  }
  if (signal?.aborted === true) return outcome();
  const others = await restoreOthers(work, keep);
  changes.push(...others.changes);
  failures.push(...others.failures.values());
  return outcome();
}

/** Of every host that is to have a file. The canary goes with the others: without them there is nothing to prove. */
function routesOf({ config, canary }: Wanted): readonly Route[] {
  const routes = [...config.upstreams.keys()]
    .map((host) => routeFor(config, host))
    .filter(({ kind }) => kind !== 'untouched');
  if (canary !== true || routes.length === 0) return routes;
  return [...routes.filter(({ host }) => host !== CANARY_HOST), CANARY_ROUTE];
}

type Work = Settled & Wanted & { readonly state: State };
interface Applied {
  readonly state: HostState;
  readonly change?: Pick<Change, 'kind' | 'reason'>;
}

const CONFIGURED: HostState = { kind: 'configured' };

async function applyRoute(work: Work, route: Route, directory: HostDirectory): Promise<Applied> {
  await clearLeftovers(directory.path);
  const { state, certsDir, laterDirs = [], root } = work;
  const written = state.written(directory.name);
  const disk = await readDiskFile(directory.file, root);
  const verdict = disk.kind === 'file' ? judge(disk, written) : undefined;
  // At whatever time it came: before the agent did, or while it runs.
  const generated =
    disk.kind === 'file' ? generatorProblem(pathOnNode(root, directory.file), disk.text) : undefined;
  if (generated !== undefined) return left('unsupported', generated, GENERATED);
  if (verdict?.kind === 'edited')
    return left('overridden', `${directory.file} was edited by hand. ${GIVE_BACK}`);
  if (verdict?.kind === 'unparsable')
    return left(
      'unparsable',
      `${directory.file} cannot be merged, because weir cannot read it: ${verdict.reason}. Correct or remove it.`,
    );
  const basis = await findBasis({
    root,
    certsDir,
    laterDirs,
    directory,
    disk,
    verdict,
    written,
    originals: state.originals,
  }).catch((error: unknown) => {
    if (error instanceof UnrepeatableError) return error;
    throw error;
  });
  if (basis instanceof UnrepeatableError) return left('unparsable', basis.message);

  // Nobody's default is asked for it.
  const found = route === CANARY_ROUTE ? { ...basis, file: EMPTY_HOSTS_FILE } : basis;
  const text = renderHosts(
    route,
    work.mirror,
    found,
    work.mirrorCa === undefined ? undefined : MIRROR_CA_PATH,
  );
  if (text === undefined) return { state: CONFIGURED };
  if (disk.kind === 'file' && disk.text === text && verdict?.kind === 'ours') {
    state.remember(directory.name, text);
    await state.save();
    return { state: CONFIGURED };
  }
  // Before the file: cut off at any point, what we know is enough to finish or to go back.
  if (basis.unsaved !== undefined) await saveOriginal(state.originals, basis.unsaved);
  state.remember(directory.name, text);
  state.rememberDirectories(await missingDirectories(certsDir));
  await state.save();
  // A directory without the file would hide the user's `_default` meanwhile.
  if (!directory.exists)
    await makeDirectoryWith(directory.path, basename(directory.file), text, basis.access);
  else await replaceFile(directory.file, text, basis.access);
  await removeSuperseded(state, directory.name, written, text);
  const isHealed = verdict?.kind === 'damaged' || (verdict === undefined && written !== undefined);
  return { state: CONFIGURED, change: { kind: isHealed ? 'healed' : 'written' } };
}

const GIVE_BACK = 'It is left alone; remove it to have it back from weir.';

function left(kind: 'overridden' | 'unparsable' | 'unsupported', reason: string, code?: string): Applied {
  return {
    state: { kind, reason, ...(code === undefined ? {} : { code }) },
    change: { kind: 'left', reason },
  };
}

/** The latest original is the one to go back to, and the one before it is kept until that is done. */
async function removeSuperseded(
  state: State,
  directory: string,
  before: string | undefined,
  now: string,
): Promise<void> {
  const keep = [before ?? '', now].flatMap((text) => originalIn(text));
  if (keep.length > 1 && keep[0] !== keep[1])
    await removeOriginalsOf(state.originals, directory, new Set(keep));
}

function originalIn(text: string): readonly string[] {
  const was = markerOf(text)?.was;
  return typeof was === 'object' ? [was.original] : [];
}
