import { lstat, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Logger, pino } from 'pino';
import type { Config } from '../../config/config.ts';
import { codeOf, fileProblem, messageOf } from '../../process/file-problem.ts';
import type { HostState } from '../change.ts';
import { restoreRuntimeConfiguration } from '../configure/restore.ts';
import type { Target } from '../configure/target.ts';
import { restoreFormer } from '../former-directories.ts';
import { resolveOnNode } from '../node-root.ts';
import type { RuntimeFiles } from '../runtime-files.ts';
import type { NodePlace } from '../state.ts';
import { filesOf } from './files-of.ts';
import type { NodeSight } from './node-sight.ts';
import { byBytes } from './node-view.ts';
import { shadow } from './shadow.ts';
import { touchedPaths } from './touched-paths.ts';
import { unifiedDiff } from './unified-diff.ts';

/** What the agent would make of a node's files. */
export interface Plan {
  /** By path; only those that would change. */
  readonly files: readonly PlannedFile[];
  /** What it keeps for itself, below the state directory. */
  readonly state: readonly PlannedFile[];
  /** Why hosts would be left alone, or could not be written; one line each. */
  readonly problems: readonly string[];
}

export interface PlannedFile {
  readonly path: string;
  /** `undefined`: there is none. Of a symbolic link, it is what it leads to. */
  readonly before: string | undefined;
  readonly after: string | undefined;
}

export interface PlanOptions {
  readonly root: string;
  readonly sight: NodeSight;
  /** Instead of what was found. */
  readonly certsDir?: string | undefined;
  readonly stateDir: string;
  readonly config: Config;
  readonly mirror: string;
  /** PEM of the authority that signs its certificate. */
  readonly mirrorCa?: string | undefined;
  /** Whether the agent would place the canary's file too. */
  readonly canary?: boolean;
  /** Whether it would leave the runtime's configuration as it made it, or take that back. */
  readonly configureRuntime?: boolean;
  /** What it would make of the runtime's configuration, for which the rest then holds. */
  readonly edit?: Target | undefined;
}

/**
 * Lets the agent's own code loose on a copy of the node's directories, and tells what it did there. Nothing of the node
 * is changed.
 *
 * @throws Error when the node's files cannot be read.
 */
export async function planNode(options: PlanOptions): Promise<Plan> {
  const copy = await mkdtemp(join(tmpdir(), 'weir-plan-')).catch((error: unknown) => {
    throw fileProblem('make a copy below', tmpdir(), error);
  });
  try {
    const { stateDir, edit } = options;
    const root = resolve(options.root);
    const place = { root: copy, stateDir, log: silent() };
    const pretended = { processRoot: root, signal: () => Promise.resolve() };
    const sight = edit === undefined ? options.sight : withPath(options.sight, edit.directory);
    const files = filesOf(sight, { place, certsDir: options.certsDir, pretended });
    await shadow(root, stateDir, copy);
    const written = [...(files?.directories ?? []), ...(await touchedPaths(place))];
    for (const path of [...written, ...sight.laterDirs]) await shadow(root, path, copy);
    const certs = await Promise.all(written.map((path) => resolveOnNode(copy, path)));
    const states = [await resolveOnNode(copy, stateDir)];
    const before = { certs: await readAll(copy, certs), state: await readAll(copy, states) };
    const problems = [
      ...(await leave(place, files, options)),
      ...(files === undefined ? [] : await apply(files, options)),
    ];
    const after = { certs: await readAll(copy, certs), state: await readAll(copy, states) };
    return {
      files: [...compare(before.certs, after.certs), ...(edit === undefined ? [] : [plannedEdit(edit)])],
      state: compare(before.state, after.state),
      problems: problems.map((problem) => problem.replaceAll(`${copy}/`, '/')),
    };
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/** The plan as `patch -p0` takes it, from the node's root. */
export function formatPlan({ files }: Plan): string {
  return files
    .map(({ path, before, after }) => {
      const names = `--- ${before === undefined ? '/dev/null' : path}\n+++ ${after === undefined ? '/dev/null' : path}\n`;
      return names + unifiedDiff(before ?? '', after ?? '');
    })
    .join('');
}

/** As the node is seen once this is its `config_path`. */
function withPath(sight: NodeSight, directory: string): NodeSight {
  return { ...sight, certsDirs: [directory], laterDirs: [], verdict: { kind: 'configurable' } };
}

function plannedEdit({ file, before, after }: Target): PlannedFile {
  return { path: file, before, after };
}

/** As the agent does at its start, with what is of another runtime or of another way to tell it. */
async function leave(
  place: NodePlace & { readonly root: string },
  inUse: RuntimeFiles | undefined,
  { configureRuntime = false }: PlanOptions,
): Promise<readonly string[]> {
  const problems: string[] = [];
  const note = (error: unknown): void => void problems.push(messageOf(error));
  await restoreFormer(place, inUse).catch(note);
  if (!configureRuntime) await restoreRuntimeConfiguration(place).catch(note);
  return problems;
}

async function apply(
  files: RuntimeFiles,
  { config, mirror, mirrorCa, canary = false }: PlanOptions,
): Promise<readonly string[]> {
  const { states, failures } = await files.apply({ config, mirror, mirrorCa, canary });
  return [
    ...[...states].flatMap(([host, state]) => reasonOf(host, state)),
    ...failures.map((error) => messageOf(error)),
  ];
}

function reasonOf(host: string, state: HostState): readonly string[] {
  // What failed is told by the failure.
  return state.kind === 'configured' || state.kind === 'failed'
    ? []
    : [`${host}: ${state.kind}: ${state.reason}`];
}

function silent(): Logger {
  return pino({ level: 'silent' });
}

/** By path of the node: the text of every file, and of what links lead to. */
async function readAll(root: string, directories: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const visit = async (path: string): Promise<void> => {
    const entry = await lstat(path).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (entry?.isDirectory() === true) for (const name of await readdir(path)) await visit(join(path, name));
    else if (entry !== undefined)
      found.set(path.slice(root.length), await textOf(root, path, entry.isSymbolicLink()));
  };
  for (const directory of directories) await visit(directory);
  return found;
}

async function textOf(root: string, path: string, isLink: boolean): Promise<string> {
  try {
    return await readFile(isLink ? await resolveOnNode(root, path.slice(root.length)) : path, 'utf8');
  } catch (error) {
    if (!isLink) throw error;
    // A link that leads nowhere, round in a circle, or to a directory, says where.
    return `-> ${await readlink(path)}`;
  }
}

function compare(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): readonly PlannedFile[] {
  const paths = [...new Set([...before.keys(), ...after.keys()])].toSorted(byBytes);
  return paths
    .map((path) => ({ path, before: before.get(path), after: after.get(path) }))
    .filter((file) => file.before !== file.after);
}
