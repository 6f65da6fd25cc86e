// Real parts that exist as Go modules, pinned by the go.mod beside each main.go. A module is one binary that
// answers to several names, because linking one is what a build waits for.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Recipe } from './cache.ts';
import { onPath, run } from './command.ts';

type GoModule = {
  commands: readonly [string, ...string[]];
  tags: string;
  /** A command of another module, which go.mod names as a tool; without it, the main.go beside go.mod is built. */
  package?: string;
  /** The module in go.mod whose version the commands report, and the variable that holds it. */
  version?: { module: string; variable: string };
};

const containerdModule = 'github.com/containerd/containerd/v2';

const modules = {
  containerd: {
    commands: ['containerd', 'ctr', 'cri-pull'],
    // Snapshotters that need C libraries or kernel modules, and tracing: nothing that a pull uses.
    tags: 'no_btrfs,no_zfs,no_devmapper,no_tracing',
    version: { module: containerdModule, variable: `${containerdModule}/version.Version` },
  },
  registry: { commands: ['registry', 'crane'], tags: '' },
  conformance: {
    commands: ['conformance'],
    tags: '',
    package: 'github.com/opencontainers/distribution-spec/conformance',
  },
  artifacts: { commands: ['oci-registry', 'oras'], tags: '' },
} satisfies Record<string, GoModule>;

export function goModule(name: keyof typeof modules): Recipe {
  const module: GoModule = modules[name];
  const source = join(import.meta.dirname, name);
  const flags = buildFlags(module, source);
  return {
    name,
    key: keyOf(source, [
      process.platform,
      process.arch,
      ...module.commands,
      ...[module.package ?? []].flat(),
      ...flags,
    ]),
    make: async (directory) => {
      const [binary, ...aliases] = module.commands;
      await run('go', ['build', ...flags, '-o', join(directory, binary), module.package ?? '.'], {
        cwd: source,
        env: { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOWORK: 'off' },
      });
      await Promise.all(aliases.map((alias) => symlink(binary, join(directory, alias))));
    },
  };
}

/** Why this machine cannot build Go modules, in one sentence. */
export async function missingGo(): Promise<string | undefined> {
  if (!(await onPath('go'))) return 'Go is not on PATH, and the tools are not built yet';
  const source = join(import.meta.dirname, 'containerd');
  const wanted = /^go (\d+\.\d+(?:\.\d+)?)$/m.exec(readFileSync(join(source, 'go.mod'), 'utf8'))?.[1] ?? '';
  const environment = { ...process.env, GOTOOLCHAIN: 'local', GOWORK: 'off' };
  // Outside the module, where an older Go would refuse to say what it is.
  const found = await run('go', ['env', 'GOVERSION'], { cwd: '/', env: environment });
  return isOlder(found.trim().replace(/^go/, ''), wanted)
    ? `Go is ${found.trim()}, and the tools need ${wanted} or newer`
    : undefined;
}

function buildFlags(module: GoModule, source: string): string[] {
  const variables =
    module.version === undefined
      ? []
      : [`-X ${module.version.variable}=${pinned(module.version.module, source)}`];
  return [
    '-trimpath',
    '-mod=readonly',
    '-buildvcs=false',
    '-tags',
    module.tags,
    '-ldflags',
    ['-s -w', ...variables].join(' '),
  ];
}

function pinned(module: string, source: string): string {
  const line = readFileSync(join(source, 'go.mod'), 'utf8')
    .split('\n')
    .find((line) => line.trim().startsWith(`${module} `));
  if (line === undefined) throw new Error(`${join(source, 'go.mod')} does not require ${module}`);
  return line.trim().split(' ')[1] ?? '';
}

function keyOf(source: string, inputs: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(inputs));
  for (const file of readdirSync(source).toSorted())
    hash.update(`\0${file}\0`).update(readFileSync(join(source, file)));
  return hash.digest('hex').slice(0, 16);
}

function isOlder(found: string, wanted: string): boolean {
  const have = numbersOf(found);
  const need = numbersOf(wanted);
  const index = need.findIndex((part, position) => part !== (have[position] ?? 0));
  return index !== -1 && (have[index] ?? 0) < (need[index] ?? 0);
}

function numbersOf(version: string): number[] {
  return version.split('.').map((part) => Number.parseInt(part, 10) || 0);
}
