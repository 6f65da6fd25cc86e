import type { JsonMap } from '@iarna/toml';
import * as z from 'zod';
import { isTable } from '../hosts-file.ts';
import { type ConfigFile, ConfigProblem } from './containerd-files.ts';
import { lineOf, valueAt } from './toml-line.ts';
import { isAtLeast, type Version } from './version.ts';

/** A value, and the file and line that say it. */
export interface Located<T> {
  readonly value: T;
  /** `/etc/containerd/config.toml:12` */
  readonly source: string;
}

/** What containerd's CRI plugin goes by for registries, as its files say it. */
export interface RegistrySettings {
  /** As it is written: empty, or absent, the version's default holds. */
  readonly configPath: Located<string> | undefined;
  /** What keeps the plugin from loading together with a `config_path`. */
  readonly conflicting: Located<string> | undefined;
  /** What makes 2.1 and later pull as earlier versions do, and not through the transfer service. */
  readonly localPull: Located<string> | undefined;
  /** Says that the CRI plugin is switched off. */
  readonly disabled: Located<string> | undefined;
  /** `registry.mirrors`, which the default of 2.2 and later gives way to. */
  readonly hasMirrors: boolean;
}

/**
 * Puts containerd's files together as it does itself. 1.x lets a later file replace a plugin's whole table, and goes
 * by one version for all of them; 2.x brings each file to its own form first, and then merges deeply.
 *
 * @throws ConfigProblem when containerd would not start, or not load CRI, with them.
 */
export function readRegistrySettings(
  files: readonly ConfigFile[],
  version: Version | undefined,
): RegistrySettings {
  const isFirst =
    version === undefined ? files.every((file) => file.version < 3) : !isAtLeast(version, [2, 0]);
  const sections = isFirst ? sectionsOf1(files, version) : sectionsOf2(files, version);
  const disabled = locateDisabled(files, isFirst);
  const merged = sections.reduce<JsonMap>((whole, { table }) => merge(whole, table), {});
  const parsed = imagesSchema.safeParse(merged);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const keys = (issue?.path ?? []).map(String);
    throw new ConfigProblem(
      `${locate(sections, keys)}: ${keys.join('.')}: ${issue?.message ?? 'not allowed'}`,
    );
  }
  const images = parsed.data;
  const { registry } = images;
  const located = (keys: readonly string[], value = keys.join('.')): Located<string> => ({
    value,
    source: locate(sections, keys),
  });
  const hasMirrors = Object.keys(registry.mirrors).length > 0;
  const withTls = Object.entries(registry.configs).find(
    ([, config]) => isTable(config) && isTable(config['tls']),
  );
  const conflicting = hasMirrors
    ? located(['registry', 'mirrors'])
    : isFirst && withTls !== undefined
      ? located(['registry', 'configs', withTls[0], 'tls'])
      : undefined;
  const local = localPullKey(images);
  return {
    configPath:
      registry.config_path === undefined
        ? undefined
        : located(['registry', 'config_path'], registry.config_path),
    conflicting,
    localPull: local === undefined ? undefined : located(local),
    disabled,
    hasMirrors,
  };
}

const tables = z.record(z.string(), z.unknown()).default({});
const imagesSchema = z.object({
  registry: z
    .object({ config_path: z.string().optional(), mirrors: tables, configs: tables, auths: tables })
    .prefault({}),
  use_local_image_pull: z.boolean().default(false),
  discard_unpacked_layers: z.boolean().default(false),
  disable_snapshot_annotations: z.boolean().default(true),
  image_pull_with_sync_fs: z.boolean().default(false),
  max_concurrent_downloads: z.coerce.number().default(3),
});

/** containerd's `CheckLocalImagePullConfigs` (internal/cri/config). */
function localPullKey(images: z.infer<typeof imagesSchema>): readonly string[] | undefined {
  const { registry } = images;
  if (images.use_local_image_pull) return ['use_local_image_pull'];
  if (!images.disable_snapshot_annotations) return ['disable_snapshot_annotations'];
  if (images.discard_unpacked_layers) return ['discard_unpacked_layers'];
  for (const key of ['mirrors', 'configs', 'auths'] as const)
    if (Object.keys(registry[key]).length > 0) return ['registry', key];
  if (images.max_concurrent_downloads !== 3) return ['max_concurrent_downloads'];
  return images.image_pull_with_sync_fs ? ['image_pull_with_sync_fs'] : undefined;
}

/** What one file says of CRI's images, in the form of the newest version, and where it says it. */
interface Section {
  readonly file: ConfigFile;
  readonly table: JsonMap;
  /** The keys of the tables, in the file, that it was taken from. */
  readonly origins: readonly (readonly string[])[];
}

const CRI_1 = 'cri';
const CRI_2 = 'io.containerd.grpc.v1.cri';
const IMAGES = 'io.containerd.cri.v1.images';

function sectionsOf1(files: readonly ConfigFile[], version: Version | undefined): readonly Section[] {
  const last = files.findLast((file) => file.version > 0);
  const form = last?.version ?? 1;
  // 1.6 takes whatever is above 2 for 2.
  if (last !== undefined && form > 2 && version !== undefined && isAtLeast(version, [1, 7]))
    throw new ConfigProblem(
      `${sourceOf(last, [['version']])}: containerd ${version.text} does not read version ${form} of the configuration`,
    );
  if (form > 1) checkNames(files);
  const key = form > 1 ? CRI_2 : CRI_1;
  const file = files.findLast(({ plugins }) => Object.hasOwn(plugins, key));
  if (file === undefined) return [];
  return [{ file, table: imagesOf(pluginOf(file, key)), origins: originsOf(['plugins', key]) }];
}

/** `ValidateV2` of containerd 1.x. */
function checkNames(files: readonly ConfigFile[]): void {
  for (const file of files) {
    const bare = Object.keys(file.plugins).find((name) => !name.includes('.'));
    if (bare !== undefined)
      throw new ConfigProblem(
        `${sourceOf(file, [['plugins', bare]])}: "${bare}" is a name of version 1 of the configuration, which is read as version 2`,
      );
  }
}

function sectionsOf2(files: readonly ConfigFile[], version: Version | undefined): readonly Section[] {
  const newest = version !== undefined && !isAtLeast(version, [2, 3]) ? 3 : 4;
  return files.map((file) => {
    if (file.version > newest && version !== undefined)
      throw new ConfigProblem(
        `${sourceOf(file, [['version']])}: containerd ${version.text} does not read version ${file.version} of the configuration`,
      );
    const own = pluginOf(file, IMAGES);
    if (file.version >= newest) return { file, table: own, origins: [['plugins', IMAGES]] };
    const key = file.version < 2 && Object.hasOwn(file.plugins, CRI_1) ? CRI_1 : CRI_2;
    const table = { ...own, ...imagesOf(pluginOf(file, key)) };
    return { file, table, origins: [...originsOf(['plugins', key]), ['plugins', IMAGES]] };
  });
}

function pluginOf({ plugins, path }: ConfigFile, key: string): JsonMap {
  const table = plugins[key];
  if (table === undefined) return {};
  if (!isTable(table)) throw new ConfigProblem(`${path}: plugins."${key}" is no table`);
  return table;
}

/** The settings of images in the one CRI plugin of former versions (`migrateConfig` of containerd's plugins/cri/images). */
function imagesOf(cri: JsonMap): JsonMap {
  const containerd = isTable(cri['containerd']) ? cri['containerd'] : {};
  return {
    ...pick(cri, ['registry', 'max_concurrent_downloads', 'image_pull_with_sync_fs']),
    ...pick(containerd, ['disable_snapshot_annotations', 'discard_unpacked_layers']),
  };
}

function originsOf(cri: readonly string[]): readonly (readonly string[])[] {
  return [cri, [...cri, 'containerd']];
}

function pick(table: JsonMap, keys: readonly string[]): JsonMap {
  return Object.fromEntries(Object.entries(table).filter(([key]) => keys.includes(key)));
}

function merge(into: JsonMap, from: JsonMap): JsonMap {
  const merged = { ...into };
  for (const [key, value] of Object.entries(from)) {
    const before = merged[key];
    merged[key] = isTable(before) && isTable(value) ? merge(before, value) : value;
  }
  return merged;
}

function locateDisabled(files: readonly ConfigFile[], isFirst: boolean): Located<string> | undefined {
  const names = isFirst ? [CRI_1, CRI_2] : [CRI_1, CRI_2, IMAGES];
  for (const file of files) {
    const value = file.disabledPlugins.find((name) => names.includes(name));
    if (value !== undefined) return { value, source: sourceOf(file, [['disabled_plugins']]) };
  }
  return undefined;
}

/** The last file that says it is the one that counts. */
function locate(sections: readonly Section[], keys: readonly string[]): string {
  const section = sections.findLast(({ table }) => valueAt(table, keys) !== undefined);
  if (section === undefined) return sections.at(-1)?.file.path ?? 'the defaults';
  return sourceOf(
    section.file,
    section.origins.map((origin) => [...origin, ...keys]),
  );
}

function sourceOf({ path, text }: ConfigFile, places: readonly (readonly string[])[]): string {
  const line = places.map((keys) => lineOf(text, keys)).find((found) => found !== undefined);
  return line === undefined ? path : `${path}:${line}`;
}
