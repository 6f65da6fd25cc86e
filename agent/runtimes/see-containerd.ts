import { isAbsolute, normalize } from 'node:path';
import { messageOf } from '../../process/file-problem.ts';
import { type ConfigFile, ConfigProblem, readConfigFiles } from './containerd-files.ts';
import { type Located, type RegistrySettings, readRegistrySettings } from './containerd-registry.ts';
import type { Distribution } from './distributions.ts';
import type { HostProcess } from './host-processes.ts';
import { DEFAULT_LIST } from './known-directories.ts';
import type { NodeSight, SightVerdict } from './node-sight.ts';
import type { NodeView } from './node-view.ts';
import { findOwnedHosts } from './owned-hosts.ts';
import { isAtLeast, type Version } from './version.ts';

/** What there is to see of containerd's configuration, and what comes of it. */
export type ContainerdSight = Omit<NodeSight, 'distribution' | 'runtime' | 'version' | 'socket'>;

/** Where there is nothing to see, or to write. */
export const NOTHING = {
  configFiles: [],
  configPath: undefined,
  localPull: undefined,
  certsDirs: [],
  laterDirs: [],
  ownedHosts: [],
  missingConfigPath: undefined,
} as const;

export interface Asked {
  readonly main: Located<string>;
  readonly version: Version | undefined;
  /** By the word of the running process, whatever the files say by now. */
  readonly running: Located<string> | undefined;
  readonly distribution: Distribution;
  readonly process: HostProcess | undefined;
}

/** Reads containerd's files, and tells which directories it takes hosts.toml files from. */
export async function seeContainerd(view: NodeView, asked: Asked): Promise<ContainerdSight> {
  const { main, distribution } = asked;
  const restart = 'Correct it and restart containerd.';
  let files: readonly ConfigFile[];
  let settings: RegistrySettings;
  try {
    files = await readConfigFiles(view, main.value, asked.version);
    settings = readRegistrySettings(files, asked.version);
  } catch (error) {
    if (!(error instanceof ConfigProblem)) throw error;
    const reason = `containerd would not start, or not serve CRI, with its configuration: ${messageOf(error)}`;
    return { ...NOTHING, verdict: { kind: 'fallback', reason, remedy: restart }, notes: [] };
  }
  const version = asked.version ?? versionByFiles(files);
  const notes = [
    ...(files.length === 0 ? [`${main.value} is not there: containerd goes by its defaults`] : []),
    ...newerFiles(files, asked.process),
  ];
  const written = effectiveConfigPath(settings, version, files[0]?.path ?? main.value);
  const configPath = asked.running ?? written;
  if ((configPath?.value ?? '') !== (written?.value ?? ''))
    notes.push(
      `the running containerd goes by config_path "${configPath?.value}", and its files say "${written?.value ?? ''}"${written === undefined ? '' : ` (${written.source})`}`,
    );
  const base = {
    ...NOTHING,
    configFiles: files.map(({ path }) => path),
    configPath,
    localPull: settings.localPull,
  };
  const fallback = (reason: string, remedy: string): ContainerdSight => ({
    ...base,
    verdict: { kind: 'fallback', reason, remedy },
    notes,
  });

  const { disabled, conflicting } = settings;
  if (disabled !== undefined)
    return fallback(
      `the CRI plugin is switched off in ${disabled.source}`,
      'If Kubernetes uses this containerd, take it out of disabled_plugins and restart containerd.',
    );
  if (configPath?.value === '' && written !== undefined && written.value !== '')
    return fallback(
      `config_path is set in ${written.source}, and the running containerd does not go by it yet`,
      'Restart containerd.',
    );
  if (configPath === undefined || configPath.value === '') {
    if (conflicting !== undefined)
      return fallback(
        `registries are configured by ${conflicting.value} in ${conflicting.source}, with which config_path would keep the CRI plugin from loading`,
        `Say the same in hosts.toml files, take it out of the configuration, then: ${distribution.remedy}`,
      );
    if (version === undefined)
      return fallback(
        `no config_path is set in ${main.value}, and containerd's version, which decides what holds then, is not known`,
        distribution.remedy,
      );
    const reason = `no config_path is set in ${main.value}, and containerd ${version.text} has no default for it`;
    return { ...fallback(reason, distribution.remedy), missingConfigPath: distribution.certsDir };
  }
  if (conflicting !== undefined)
    return fallback(
      `${conflicting.value} (${conflicting.source}) together with config_path (${configPath.source}) keeps the CRI plugin from loading`,
      'Say the same in hosts.toml files, take it out of the configuration and restart containerd.',
    );

  const paths = configPath.value.split(':').filter((path) => path !== '');
  const [first = ''] = paths;
  if (!paths.every(isAbsolute))
    return fallback(
      `config_path "${configPath.value}" (${configPath.source}) is no absolute path`,
      distribution.remedy,
    );
  const isList = configPath.value.includes(':');
  const isTrap =
    isList && settings.localPull === undefined && (version === undefined || isAtLeast(version, [2, 1]));
  // Taken for one path, as it stands.
  const certsDirs = isTrap ? [normalize(first), normalize(configPath.value)] : [normalize(first)];
  for (const directory of certsDirs)
    if (await view.isReadOnly(directory))
      return {
        ...base,
        verdict: {
          kind: 'unsupported',
          reason: `${directory} is on a read-only file system`,
          remedy: 'Set config_path to a directory that can be written to, and restart containerd.',
        },
        notes,
      };
  if (isTrap)
    notes.push(
      version === undefined
        ? 'the version is not known: newer ones take the list of directories for one path, so that directory is written as well'
        : 'the list trap: pulls through CRI take the list of directories for one path, so that directory is written as well',
    );
  const laterDirs = isTrap ? [] : paths.slice(1).map((path) => normalize(path));
  const verdict: SightVerdict = { kind: 'configurable' };
  const ownedHosts = await findOwnedHosts(view, certsDirs);
  return { ...base, certsDirs, laterDirs, ownedHosts, verdict, notes };
}

function effectiveConfigPath(
  { configPath, hasMirrors }: RegistrySettings,
  version: Version | undefined,
  main: string,
): Located<string> | undefined {
  const isSet = configPath !== undefined && configPath.value !== '';
  if (isSet || hasMirrors || version === undefined || !isAtLeast(version, [2, 2])) return configPath;
  const source = configPath === undefined ? `not set in ${main}` : `empty in ${configPath.source}`;
  return { value: DEFAULT_LIST, source: `the default of containerd ${version.text} (${source})` };
}

/** Only 2.3 and later read version 4 of the configuration. */
function versionByFiles(files: readonly ConfigFile[]): Version | undefined {
  return files[0] !== undefined && files[0].version >= 4
    ? { text: '2.3 or later', major: 2, minor: 3 }
    : undefined;
}

/** The clock of /proc is exact to a second. */
const CLOCK_MS = 2000;

function newerFiles(files: readonly ConfigFile[], process: HostProcess | undefined): readonly string[] {
  if (process === undefined) return [];
  return files
    .filter(({ changedAt }) => changedAt > process.startedAt + CLOCK_MS)
    .map(
      ({ path }) =>
        `${path} was changed after containerd (process ${process.pid}) started, which goes by what it said before until it is restarted`,
    );
}
