import { isDeepStrictEqual } from 'node:util';
import { stringify } from '@iarna/toml';
import { type Route, routeFor } from '../../config/routing.ts';
import { CANARY_HOST } from '../../oci/canary.ts';
import { messageOf } from '../../process/file-problem.ts';
import { CANARY_ROUTE } from '../canary-route.ts';
import type { HostState } from '../change.ts';
import type { Wanted } from '../runtime-files.ts';
import { endpointLocation, type Location, mirrorLocation, upstreamLocation } from './location.ts';
import {
  conflictAmong,
  type MirrorEntry,
  matchLength,
  parseRegistries,
  type RegistryEntry,
  tableOf,
} from './registries-conf.ts';
import type { UserRegistries } from './user-registries.ts';

/** What our drop-in says, and how each upstream stands with it. */
export interface DropIn {
  /** Empty where no file is to be. */
  readonly entries: readonly RegistryEntry[];
  readonly states: ReadonlyMap<string, HostState>;
  readonly canary: HostState | undefined;
}

/**
 * What the drop-in is to say: for each upstream an entry that asks the mirror first, and keeps whatever the user's
 * own files say of that registry, because an entry of a later file replaces the whole of an earlier one.
 */
export function planDropIn({ config, mirror, canary }: Wanted, users: UserRegistries): DropIn {
  const routes = [...config.upstreams.keys()].map((host) => routeFor(config, host));
  const wanted = routes.filter((route) => route.kind !== 'untouched');
  const entries: RegistryEntry[] = [];
  const states = new Map<string, HostState>();
  const add = (route: Exclude<Route, { kind: 'untouched' }>, found: UserRegistries): HostState => {
    const { host } = route;
    const theirs = ofUser(host, found);
    if (theirs.state !== undefined) return theirs.state;
    try {
      const place =
        route.kind === 'node'
          ? endpointLocation(route.mirror)
          : mirrorLocation(mirror, route.upstream, config);
      const entry = merged(host, place, route, theirs.entry);
      const clash = conflictAmong([...entries, entry]);
      if (clash !== undefined) return { kind: 'failed', reason: `${clash}: correct its endpoint` };
      entries.push(entry);
      return { kind: 'configured' };
    } catch (error) {
      return { kind: 'unsupported', reason: messageOf(error) };
    }
  };
  for (const route of wanted) states.set(route.host, add(route, users));
  if (canary !== true || wanted.length === 0 || CANARY_ROUTE.kind === 'untouched')
    return { entries, states, canary: undefined };
  // Nobody's entries are asked for it.
  const state = add(CANARY_ROUTE, { before: new Map(), after: new Map() });
  return {
    entries: entries.some(({ prefix }) => prefix !== CANARY_HOST) ? entries : [],
    states,
    canary: state,
  };
}

/**
 * The text of a drop-in, without our marker.
 *
 * @throws Error when it would not be read back as what is meant.
 */
export function formatDropIn(entries: readonly RegistryEntry[]): string {
  const text = stringify({ registry: entries.map(tableOf) });
  const meant = new Map(entries.map((entry) => [entry.prefix, entry]));
  const read = parseRegistries(text, 'drop-in');
  if (entries.some(({ prefix }) => !isDeepStrictEqual(plain(read.get(prefix)), plain(meant.get(prefix)))))
    throw new Error('the merged file would not read back as what is meant: simplify the registries.conf');
  return text;
}

/** The parser's tables have no prototype. */
function plain(entry: RegistryEntry | undefined): unknown {
  return entry === undefined ? undefined : JSON.parse(JSON.stringify(tableOf(entry)));
}

/** What the user's files say of a host, as far as it leaves anything to us. */
function ofUser(
  host: string,
  { before, after }: UserRegistries,
): { readonly state?: HostState; readonly entry?: RegistryEntry } {
  const later = after.get(host);
  if (later !== undefined)
    return overridden(`${later.file} has a [[registry]] for ${host} and is read after weir's. Rename it.`);
  const all = [...before.values(), ...after.values()];
  const [longest] = all
    .filter(({ entry }) => matchLength(host, entry.prefix) !== undefined)
    .toSorted((one, other) => byLength(one.entry.prefix, other.entry.prefix));
  if (longest === undefined) return {};
  if (longest.entry.blocked) return overridden(`${longest.file} blocks ${host}`);
  return { entry: longest.entry };
}

/** The longest first; of two alike, the one that is first in the order of their bytes. */
function byLength(one: string, other: string): number {
  return other.length - one.length || Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function overridden(reason: string): { readonly state: HostState } {
  return { state: { kind: 'overridden', reason } };
}

function merged(
  host: string,
  place: Location,
  { upstream }: Exclude<Route, { kind: 'untouched' }>,
  user: RegistryEntry | undefined,
): RegistryEntry {
  // What a less particular prefix leaves of the host goes behind each of its locations.
  const rest = host.slice(matchLength(host, user?.prefix ?? host));
  const ours: MirrorEntry = { ...place, pullFromMirror: 'all', others: {} };
  const theirs = (user?.mirrors ?? [])
    .map(
      (mirror): MirrorEntry => ({
        ...mirror,
        location: mirror.location + rest,
        // For all mirrors of a registry it would hold for ours too.
        pullFromMirror: user?.byDigestOnly === true ? 'digest-only' : mirror.pullFromMirror,
      }),
    )
    .filter(({ location }) => location !== ours.location);
  const direct: Location =
    user === undefined
      ? upstreamLocation(upstream)
      : { location: user.location === undefined ? host : user.location + rest, insecure: user.insecure };
  return {
    prefix: host,
    ...(upstream.direct ? direct : place),
    blocked: false,
    byDigestOnly: false,
    // Where the last resort is the mirror as well, it is asked once.
    mirrors: upstream.direct || theirs.length > 0 ? [ours, ...theirs] : [],
    others: user?.others ?? {},
  };
}
