import { type ConfigFile, readConfigFiles } from '../runtimes/containerd-files.ts';
import { readRegistrySettings } from '../runtimes/containerd-registry.ts';
import { Refusal } from './refusal.ts';
import type { Edit, Wanted } from './registry-edit.ts';
import { setString } from './toml-edit.ts';

/** Files in it are merged into k0s's own part of containerd's configuration: by k0s, or by containerd 2 itself. */
const DIRECTORY = '/etc/k0s/containerd.d';
const FILE = `${DIRECTORY}/weir.toml`;
/** The first line of a main file that k0s writes: without it, k0s looks at no drop-in. */
const MANAGED = '# k0s_managed=true';
const SECTIONS = { 2: 'io.containerd.grpc.v1.cri', 3: 'io.containerd.cri.v1.images' } as const;

/**
 * The drop-in that has k0s set this `config_path`, in the version of its own part; `undefined` where there is one.
 *
 * @throws Refusal when k0s would not take it.
 * @throws ConfigProblem when containerd would not start with its files as they are.
 */
export async function findK0sDropIn({ view, main, version, directory }: Wanted): Promise<Edit | undefined> {
  const files = await readConfigFiles(view, main, version);
  const settings = readRegistrySettings(files, version);
  const { configPath } = settings;
  if (configPath !== undefined && configPath.value !== '') return undefined;
  const remedy = `Set config_path = "${directory}" for the registry of the CRI plugin in ${main}.`;
  if (files[0]?.text.split(/\r?\n/, 1)[0] !== MANAGED)
    throw new Refusal(`${main} is not managed by k0s, which then takes no drop-ins`, remedy);
  if (!(await view.exists(DIRECTORY)))
    throw new Refusal(`this k0s has no ${DIRECTORY}, as those before 1.27.1`, `Upgrade k0s. ${remedy}`);
  if (await view.exists(FILE))
    throw new Refusal(`${FILE} is there, and k0s does not go by it`, `Look into k0s's log, or remove it.`);
  const section = sectionOf(files);
  if (section === undefined)
    throw new Refusal(
      `neither ${main} nor what it imports has the CRI plugin of k0s in a known version`,
      remedy,
    );
  const keys = ['plugins', SECTIONS[section], 'registry', 'config_path'];
  const after = setString(`version = ${section}\n`, keys, directory);
  if (after === undefined) throw new Error(`no drop-in can be written for "${directory}"`);
  return { path: FILE, before: undefined, after, keys, settings };
}

function sectionOf(files: readonly ConfigFile[]): keyof typeof SECTIONS | undefined {
  for (const version of [3, 2] as const)
    if (files.some((file) => file.version === version && Object.hasOwn(file.plugins, SECTIONS[version])))
      return version;
  return undefined;
}
