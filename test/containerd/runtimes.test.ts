// What weir reads out of containerd's configuration files, beside what each containerd itself makes of them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseToml } from '../../agent/hosts-file.ts';
import { askCri } from '../../agent/runtimes/ask-cri.ts';
import { ConfigProblem, readConfigFiles } from '../../agent/runtimes/containerd-files.ts';
import { readRegistrySettings } from '../../agent/runtimes/containerd-registry.ts';
import type { NodeSight } from '../../agent/runtimes/node-sight.ts';
import { viewNode } from '../../agent/runtimes/node-view.ts';
import { seeNode } from '../../agent/runtimes/see-node.ts';
import { valueAt } from '../../agent/runtimes/toml-line.ts';
import { parseVersion } from '../../agent/runtimes/version.ts';
import { provide } from '../tools/cache.ts';
import { CommandError, run } from '../tools/command.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { type Containerd, recipe, startContainerd, type Version, versions } from './containerd.ts';
import { type PushedImage, pushImages } from './pushed.ts';
import { missing, missingVersions } from './tier.ts';
import { startUpstream, type Upstream } from './upstream.ts';

// That a version cannot be tried here is told, and fails in CI, in pull.test.ts.
const impossible = await missing();
const lacking = await missingVersions();
const runnable = impossible === undefined ? versions.filter((version) => !lacking.has(version)) : [];

const CRI = 'plugins."io.containerd.grpc.v1.cri"';
const IMAGES = 'plugins."io.containerd.cri.v1.images"';
const path = (value: string, section = CRI): string => `[${section}.registry]\nconfig_path = "${value}"\n`;

/** Configurations, the main file first. */
const CONFIGURATIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'version 1': { 'config.toml': path('/one', 'plugins.cri') },
  'version 1 with a full name': { 'config.toml': path('/one') },
  'version 2': { 'config.toml': `version = 2\n${path('/two')}` },
  'version 2 with the new section': { 'config.toml': `version = 2\n${path('/two', IMAGES)}` },
  'version 2 with both sections': { 'config.toml': `version = 2\n${path('/old')}${path('/new', IMAGES)}` },
  'version 3': { 'config.toml': `version = 3\n${path('/three', IMAGES)}` },
  'version 3 with the old section': { 'config.toml': `version = 3\n${path('/three')}` },
  'version 4': { 'config.toml': `version = 4\n${path('/four', IMAGES)}` },
  'version 4 with the old section': { 'config.toml': `version = 4\n${path('/four')}` },
  'version 5': { 'config.toml': `version = 5\n${path('/five', IMAGES)}` },
  'nothing said': { 'config.toml': 'version = 2\nroot = "/var/lib/containerd"\n' },
  'an empty file': { 'config.toml': '' },
  'a list': { 'config.toml': `version = 2\n${path('/a:/b')}` },
  'keys with dots and an inline table': {
    'config.toml': `version = 2\n[${CRI}]\nregistry = { config_path = '/inline' }\n`,
  },
  'an import that says something else of the plugin': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n${path('/main')}`,
    'more.toml': `version = 2\n[${CRI}]\nmax_concurrent_downloads = 5\n`,
  },
  'an import that empties it': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n${path('/main')}`,
    'more.toml': `version = 2\n${path('')}`,
  },
  'an import without a version': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n${path('/main')}`,
    'more.toml': path('/import'),
  },
  'imports of version 1 into version 2': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n${path('/main')}`,
    'more.toml': `version = 1\n${path('/import', 'plugins.cri')}`,
  },
  'an import of version 2 into version 1': {
    'config.toml': `imports = ["more.toml"]\n${path('/main', 'plugins.cri')}`,
    'more.toml': `version = 2\n[${CRI}]\nmax_concurrent_downloads = 5\n`,
  },
  'a pattern, read in the order of names': {
    'config.toml': `version = 2\nimports = ["conf.d/*.toml"]\n${path('/main')}`,
    'conf.d/b.toml': `version = 2\n${path('/b')}`,
    'conf.d/a.toml': `version = 2\n${path('/a')}`,
    'conf.d/.hidden.toml': `version = 2\n${path('/hidden')}`,
    'conf.d/z.conf': 'no TOML at all',
  },
  'a pattern of an absolute path': {
    'config.toml': `version = 2\nimports = ["DIR/conf.d/[ab]?.toml*"]\n${path('/main')}`,
    'conf.d/b1.toml': `version = 2\n${path('/b')}`,
    'conf.d/c1.toml': `version = 2\n${path('/c')}`,
  },
  'a pattern that nothing fits': {
    'config.toml': `version = 2\nimports = ["none/*.toml"]\n${path('/main')}`,
  },
  'imports of imports, level by level, and in a circle': {
    'config.toml': `version = 2\nimports = ["one.toml", "two.toml"]\n${path('/main')}`,
    'one.toml': `version = 2\nimports = ["three.toml", "config.toml"]\n${path('/one')}`,
    'two.toml': `version = 2\n${path('/two')}`,
    'three.toml': `version = 2\nimports = ["one.toml"]\n${path('/three')}`,
  },
  'mirrors in two files': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n[${CRI}.registry.mirrors."docker.io"]\nendpoint = ["http://a"]\n`,
    'more.toml': `version = 2\n[${CRI}.registry]\nconfig_path = ""\n`,
  },
  'a path that is no text': { 'config.toml': `version = 2\n[${CRI}.registry]\nconfig_path = 3\n` },
  'no TOML': { 'config.toml': `version = 2\n[${CRI}.registry\n` },
  'no TOML in an import': {
    'config.toml': `version = 2\nimports = ["more.toml"]\n${path('/main')}`,
    'more.toml': `config_path "x"\n`,
  },
};

describe('containerd and weir read the same configuration', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  before(async () => {
    scratch = await makeScratch();
  });
  after(() => removeScratch(scratch));

  for (const version of runnable)
    describe(`containerd ${version}`, () => {
      for (const [name, files] of Object.entries(CONFIGURATIONS))
        it(name, async () => {
          const directory = join(scratch, version, name.replaceAll(' ', '-'));
          for (const [file, text] of Object.entries(files)) {
            await mkdir(dirname(join(directory, file)), { recursive: true });
            await writeFile(join(directory, file), text.replaceAll('DIR', directory));
          }
          const main = join(directory, 'config.toml');
          assert.deepEqual(await readByWeir(main, version), await readByContainerd(main, version));
        });
    });
});

type Reading = 'refused' | { readonly configPath: string; readonly hasMirrors: boolean };

async function readByWeir(main: string, given: Version): Promise<Reading> {
  const version = parseVersion(given);
  try {
    const files = await readConfigFiles(viewNode(), main, version);
    const { configPath, hasMirrors } = readRegistrySettings(files, version);
    return { configPath: configPath?.value ?? '', hasMirrors };
  } catch (error) {
    if (error instanceof ConfigProblem) return 'refused';
    throw error;
  }
}

async function readByContainerd(main: string, version: Version): Promise<Reading> {
  const containerd = join(await provide(recipe(version)), 'containerd');
  try {
    // As a service of systemd runs.
    const dump = parseToml(await run(containerd, ['--config', main, 'config', 'dump'], { cwd: '/' }));
    const plugin = version === '2.3' ? 'io.containerd.cri.v1.images' : 'io.containerd.grpc.v1.cri';
    const configPath = valueAt(dump, ['plugins', plugin, 'registry', 'config_path']);
    const mirrors = valueAt(dump, ['plugins', plugin, 'registry', 'mirrors']);
    assert.ok(typeof configPath === 'string', 'the dump has a config_path');
    return { configPath, hasMirrors: Object.keys(mirrors ?? {}).length > 0 };
  } catch (error) {
    if (error instanceof CommandError) return 'refused';
    throw error;
  }
}

interface Setting {
  readonly registry: string;
  readonly images?: string;
  /** The tests' configuration of former versions has the plugin's own table already. */
  readonly isOfNewest?: boolean;
}

/** In its own memory: everything else is read-only to it. */
const hosts = '/run/weir/hosts';

/** CRI's table `registry`, in which DIR is such a directory, and what else the file says of images. */
const SETTINGS: Readonly<Record<string, Setting>> = {
  'one directory': { registry: 'config_path = "DIR/one"' },
  'no directory': { registry: '' },
  'an empty directory': { registry: 'config_path = ""' },
  'a list': { registry: 'config_path = "DIR/one:DIR/two"' },
  'a list, and layers that are not kept': {
    registry: 'config_path = "DIR/one:DIR/two"',
    images: 'discard_unpacked_layers = true',
  },
  'no directory, and more downloads at once': {
    registry: '',
    images: 'max_concurrent_downloads = 4',
    isOfNewest: true,
  },
  credentials: { registry: 'config_path = "DIR/one:DIR/two"\nconfigs."x.example".auth.username = "x"' },
};

describe('containerd reads hosts.toml where weir says', { skip: runnable.length === 0 }, () => {
  let scratch: string;
  let hub: Upstream;
  let image: PushedImage;
  let mirror: Awaited<ReturnType<typeof startMirror>>;

  before(async () => {
    scratch = await makeScratch();
    hub = await startUpstream('hub', scratch);
    const pushed = await pushImages(hub, hub);
    const smallest = pushed[2];
    assert.ok(smallest !== undefined);
    image = smallest;
    mirror = await startMirror();
  });
  after(async () => {
    await mirror.close();
    await hub.down();
    await removeScratch(scratch);
  });

  for (const version of runnable)
    for (const [name, { registry, images, isOfNewest = false }] of Object.entries(SETTINGS)) {
      if (isOfNewest && version !== '2.3') continue;
      it(`containerd ${version}, ${name}`, async () => {
        const directory = join(scratch, version, name.replaceAll(/\W+/g, '-'));
        await mkdir(directory, { recursive: true });
        const section = version === '2.3' ? 'io.containerd.cri.v1.images' : 'io.containerd.grpc.v1.cri';
        const inContainerd = version !== '2.3' && images?.startsWith('discard') === true ? '.containerd' : '';
        const more = images === undefined ? '' : `\n[plugins."${section}"${inContainerd}]\n${images}`;
        const text = registry.replaceAll('DIR', hosts) + more;
        const containerd = await startContainerd(version, '', directory, text);
        try {
          // The machine's /etc is read-only in there, and the default leads below it.
          await overlayEtc(containerd);
          const sight = await seeAs(containerd, directory, version);
          const roots = [`${hosts}/one`, `${hosts}/two`, '/etc/containerd/certs.d', '/etc/docker/certs.d'];
          const lists = [`${roots[0]}:${roots[1]}`, `${roots[2]}:${roots[3]}`];
          const asked: string[] = [];
          for (const place of [...roots, ...lists]) if (await isAsked(containerd, place)) asked.push(place);
          assert.deepEqual(asked, expected(sight), JSON.stringify(sight, undefined, 2));
        } finally {
          await containerd.stop();
        }
      });
    }

  /** Whether containerd asks a mirror that a file below this directory, and nowhere else, names. */
  async function isAsked(containerd: Containerd, certsDir: string): Promise<boolean> {
    const host = hub.endpoint.replace('http://', '');
    const directory = join(containerd.root, certsDir, host.replace(/:(\d+)$/, '_$1_'));
    await mkdir(directory, { recursive: true });
    await writeFile(
      join(directory, 'hosts.toml'),
      `server = "${hub.endpoint}"\n[host."${mirror.url}"]\n  capabilities = ["pull", "resolve"]\n`,
    );
    const before = mirror.requests();
    try {
      await containerd.removeImages();
      await containerd.pull(image.reference.replace(/^[^/]+/, host));
    } finally {
      await rm(directory, { recursive: true });
    }
    return mirror.requests() > before;
  }
});

/** Of the directories that weir names: those that containerd reads. The list trap leaves it the last alone. */
function expected({ certsDirs, laterDirs, notes }: NodeSight): readonly string[] {
  const isTrap = notes.some((note) => note.startsWith('the list trap'));
  return isTrap ? certsDirs.slice(1) : [...certsDirs, ...laterDirs];
}

/** What weir sees of a node that has this containerd's configuration, and this containerd to ask. */
async function seeAs(containerd: Containerd, directory: string, version: Version): Promise<NodeSight> {
  const root = join(directory, 'node');
  await mkdir(join(root, 'etc/containerd'), { recursive: true });
  await mkdir(join(root, 'run/containerd/containerd.sock'), { recursive: true });
  const text = await readFile(join(directory, `containerd-${version}.toml`), 'utf8');
  await writeFile(join(root, 'etc/containerd/config.toml'), text);
  const { root: itsRoot, socket } = containerd;
  const sight = await seeNode({ root, askCri: () => askCri({ root: itsRoot, socket }) });
  assert.ok(sight.version?.value.replace('v', '').startsWith(version), sight.version?.value);
  return sight;
}

async function overlayEtc({ root }: Containerd): Promise<void> {
  const [, pid = ''] = /^\/proc\/(\d+)\/root$/.exec(root) ?? [];
  const [upper, work] = ['/run/weir/etc', '/run/weir/etc-work'];
  const script = `mkdir ${upper} ${work} && mount -t overlay overlay -o lowerdir=/etc,upperdir=${upper},workdir=${work} /etc`;
  await run('nsenter', ['--mount', `--target=${pid}`, 'sh', '-c', script]);
}

/** A mirror that has nothing, so that containerd goes on to the upstream. */
async function startMirror() {
  let count = 0;
  const server = createServer((_, answer) => {
    count += 1;
    answer.writeHead(404).end();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the mirror does not listen');
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests: () => count,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
