import { basename, dirname, isAbsolute, join, normalize } from 'node:path';
import { messageOf } from '../../process/file-problem.ts';
import { type ConfigFile, ConfigProblem, readConfigFiles } from '../runtimes/containerd-files.ts';
import { type RegistrySettings, readRegistrySettings } from '../runtimes/containerd-registry.ts';
import { byBytes, type NodeView } from '../runtimes/node-view.ts';
import { valueAt } from '../runtimes/toml-line.ts';
import { isAtLeast, type Version } from '../runtimes/version.ts';
import { Refusal } from './refusal.ts';
import { setString } from './toml-edit.ts';

/** One file of containerd's configuration, and what is to become of it. Paths are the node's own. */
export interface Edit {
  readonly path: string;
  /** `undefined`: there is no such file yet. */
  readonly before: string | undefined;
  readonly after: string;
  /** Of the value that is set. */
  readonly keys: readonly string[];
  /** What all files together say of registries, without it. */
  readonly settings: RegistrySettings;
}

export interface Wanted {
  readonly view: NodeView;
  /** containerd's main configuration file. */
  readonly main: string;
  readonly version: Version;
  /** What `config_path` is to be. */
  readonly directory: string;
}

const KEY = ['registry', 'config_path'] as const;
const CRI_1 = 'cri';
const CRI_2 = 'io.containerd.grpc.v1.cri';
const IMAGES = 'io.containerd.cri.v1.images';
/** Our file in a directory that the main one imports. */
const DROP_IN = 'weir.toml';

/**
 * The smallest edit after which containerd's registry has this `config_path`, and its configuration says nothing else
 * than before: read as containerd reads it. Where there is one already, it is `undefined`.
 *
 * @throws Refusal when there is none, or the file is somebody else's to write.
 * @throws ConfigProblem when containerd would not start with its files as they are.
 */
export async function findEdit(wanted: Wanted): Promise<Edit | undefined> {
  const { view, main, version, directory } = wanted;
  const files = await readConfigFiles(view, main, version);
  const before = readRegistrySettings(files, version);
  if (before.configPath !== undefined && before.configPath.value !== '') return undefined;
  if (before.conflicting !== undefined)
    throw new Refusal(
      `${before.conflicting.value} (${before.conflicting.source}) together with config_path would keep the CRI plugin from loading`,
      'Say the same in hosts.toml files and take it out of the configuration.',
    );
  const problems: string[] = [];
  for (const place of placesFor(files, wanted)) {
    const edit = editAt(place, directory, before);
    if (edit === undefined) problems.push(`${place.path} has no place for it`);
    else if (await says(wanted, edit)) return edit;
    else problems.push(`a change of ${edit.path} would not do, or do more than that`);
  }
  throw new Refusal(
    `config_path cannot be set in ${main} without changing what else it says (${problems.join('; ')})`,
    `Set config_path = "${directory}" for the registry of the CRI plugin by hand, and restart containerd.`,
  );
}

interface Place {
  readonly path: string;
  readonly text: string | undefined;
  /** What a new file begins with. */
  readonly start: string;
  readonly keys: readonly string[];
}

/** Where it may be set, the best first. */
function placesFor(files: readonly ConfigFile[], { main, version }: Wanted): readonly Place[] {
  const isFirst = !isAtLeast(version, [2, 0]);
  const newFile = (path: string): Place => ({
    path,
    text: undefined,
    start: `version = ${isFirst ? 2 : 3}\n`,
    keys: ['plugins', isFirst ? CRI_2 : IMAGES, ...KEY],
  });
  const [mainFile] = files;
  if (mainFile === undefined) return [newFile(main)];
  const form = files.findLast((file) => file.version > 0)?.version ?? 1;
  const placeIn = (file: ConfigFile): Place => {
    const section = isFirst ? (form > 1 ? CRI_2 : CRI_1) : sectionOf(file);
    return { path: file.path, text: file.text, start: '', keys: ['plugins', section, ...KEY] };
  };
  const isSaid = (file: ConfigFile): boolean =>
    valueAt(file.plugins, placeIn(file).keys.slice(1)) !== undefined;
  // The last file counts; one that does not say it itself is not opened for it, but for the main one.
  const saying = files.toReversed().filter((file) => file !== mainFile && isSaid(file));
  const dropIns = isFirst
    ? []
    : dropInsOf(mainFile).filter((path) => !files.some((file) => file.path === path));
  return [...dropIns.map(newFile), ...[...saying, mainFile].map(placeIn)];
}

/** As containerd 2 brings former versions of the configuration to its own (see containerd-registry.ts). */
function sectionOf({ version, plugins }: ConfigFile): string {
  if (version >= 3) return IMAGES;
  const cri = version < 2 && Object.hasOwn(plugins, CRI_1) ? CRI_1 : CRI_2;
  const isInImages = valueAt(plugins, [IMAGES, 'registry']) !== undefined;
  return isInImages && valueAt(plugins, [cri, 'registry']) === undefined ? IMAGES : cri;
}

function dropInsOf({ path, imports }: ConfigFile): readonly string[] {
  return imports
    .filter((pattern) => basename(pattern) === '*.toml' && !/[*?[\\]/.test(dirname(pattern)))
    .map((pattern) => join(isAbsolute(pattern) ? '/' : dirname(path), dirname(pattern), DROP_IN))
    .map((file) => normalize(file));
}

function editAt(
  { path, text, start, keys }: Place,
  directory: string,
  settings: RegistrySettings,
): Edit | undefined {
  const after = setString(text ?? start, keys, directory);
  return after === undefined ? undefined : { path, before: text, after, keys, settings };
}

/** Whether containerd would read the path, and all else as before, with the edit made. */
async function says(wanted: Wanted, edit: Edit): Promise<boolean> {
  const { main, version, directory } = wanted;
  const { settings: before } = edit;
  try {
    const files = await readConfigFiles(withEdit(wanted.view, edit), main, version);
    const after = readRegistrySettings(files, version);
    return (
      after.configPath?.value === directory &&
      after.conflicting === undefined &&
      after.hasMirrors === before.hasMirrors &&
      after.localPull?.value === before.localPull?.value &&
      after.disabled?.value === before.disabled?.value
    );
  } catch (error) {
    if (error instanceof ConfigProblem) return false;
    throw new Error(`cannot read ${main} with ${edit.path} changed: ${messageOf(error)}`, { cause: error });
  }
}

/** The node as it would be. */
function withEdit(view: NodeView, { path, after }: Edit): NodeView {
  return {
    ...view,
    file: async (asked) => (asked === path ? { text: after, changedAt: 0 } : view.file(asked)),
    // Its directories with it.
    exists: async (asked) => `${path}/`.startsWith(`${asked}/`) || view.exists(asked),
    names: async (directory) => {
      const names = await view.names(directory);
      return directory === dirname(path) && !names.includes(basename(path))
        ? [...names, basename(path)].toSorted(byBytes)
        : names;
    },
  };
}
