// Real parts that exist as Go modules, pinned by the go.mod beside each main.go. A binary may answer to several
// names, because linking one is what a build waits for.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Recipe } from './cache.ts';
import { onPath, run } from './command.ts';

type GoModule = {
  /** Each is one link: a few that share their packages are one module. */
  binaries: readonly [Binary, ...Binary[]];
  tags: string;
  /** What the commands say of themselves: values of variables, made from the versions that go.mod pins. */
  variables?: (pinned: (module: string) => string) => readonly (readonly [variable: string, value: string])[];
};

type Binary = {
  /** The path of the binary within the tool's directory, and the other names that it answers to. */
  commands: readonly [string, ...string[]];
  /** A command of another module, which go.mod names as a tool; without it, the main.go beside go.mod is built. */
  package?: string;
};

const containerdModule = 'github.com/containerd/containerd/v2';
const cniPlugins = 'github.com/containernetworking/plugins/plugins';
// Snapshotters that need C libraries or kernel modules, and tracing: nothing that a pull uses.
const containerdTags = 'no_btrfs,no_zfs,no_devmapper,no_tracing';

const modules = {
  containerd: {
    binaries: [{ commands: ['containerd', 'ctr', 'cri-pull'] }],
    tags: containerdTags,
    variables: (pinned) => [[`${containerdModule}/version.Version`, pinned(containerdModule)]],
  },
  registry: { binaries: [{ commands: ['registry', 'crane'] }], tags: '' },
  conformance: {
    binaries: [
      { commands: ['conformance'], package: 'github.com/opencontainers/distribution-spec/conformance' },
    ],
    tags: '',
  },
  artifacts: { binaries: [{ commands: ['oci-registry', 'oras'] }], tags: '' },
  /** A control plane and nodes. Loaded with the programs that they start by name, but for runc. */
  kubernetes: {
    binaries: [
      {
        commands: [
          'kubernetes',
          'etcd',
          'kube-apiserver',
          'kube-controller-manager',
          'kube-scheduler',
          'kube-proxy',
          'kubelet',
          'kubectl',
          'containerd',
          'ctr',
        ],
      },
      {
        commands: ['containerd-shim-runc-v2'],
        package: `${containerdModule}/cmd/containerd-shim-runc-v2`,
      },
      { commands: ['cni/bridge'], package: `${cniPlugins}/main/bridge` },
      { commands: ['cni/loopback'], package: `${cniPlugins}/main/loopback` },
      { commands: ['cni/host-local'], package: `${cniPlugins}/ipam/host-local` },
      { commands: ['cni/portmap'], package: `${cniPlugins}/meta/portmap` },
    ],
    tags: containerdTags,
    variables: (pinned) => {
      const version = pinned('k8s.io/kubernetes');
      const [major = '', minor = ''] = version.slice(1).split('.');
      const kubernetes = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap(
        (name) =>
          [
            [`${name}.gitVersion`, version],
            [`${name}.gitMajor`, major],
            [`${name}.gitMinor`, minor],
            [`${name}.gitTreeState`, 'clean'],
            [`${name}.gitCommit`, 'unknown'],
          ] as const,
      );
      return [...kubernetes, [`${containerdModule}/version.Version`, pinned(containerdModule)]];
    },
  },
  /** What a test Pod runs. */
  workload: { binaries: [{ commands: ['workload'] }], tags: '' },
  /** Helm 3, which most operators have, and what looks at charts. */
  helm: {
    binaries: [
      { commands: ['helm'], package: 'helm.sh/helm/v3/cmd/helm' },
      {
        commands: ['helm-unittest', 'untt'],
        package: 'github.com/helm-unittest/helm-unittest/cmd/helm-unittest',
      },
      { commands: ['kubeconform'], package: 'github.com/yannh/kubeconform/cmd/kubeconform' },
      { commands: ['helm-docs'], package: 'github.com/norwoodj/helm-docs/cmd/helm-docs' },
    ],
    tags: '',
    variables: (pinned) => [
      ['helm.sh/helm/v3/internal/version.version', pinned('helm.sh/helm/v3')],
      ['helm.sh/helm/v3/internal/version.gitTreeState', 'clean'],
    ],
  },
} satisfies Record<string, GoModule>;

export function goModule(name: keyof typeof modules): Recipe {
  const module: GoModule = modules[name];
  const source = join(import.meta.dirname, name);
  const flags = buildFlags(module, source);
  const outputs = module.binaries.flatMap((binary) => [...binary.commands, ...[binary.package ?? []].flat()]);
  return {
    name,
    key: keyOf(source, [process.platform, process.arch, ...outputs, ...flags]),
    make: async (directory) => {
      // One after the other: what they share is compiled once.
      for (const binary of module.binaries) await build(binary, source, flags, directory);
    },
  };
}

async function build(binary: Binary, source: string, flags: readonly string[], directory: string) {
  const [command, ...aliases] = binary.commands;
  const file = join(directory, command);
  await mkdir(dirname(file), { recursive: true });
  await run('go', ['build', ...flags, '-o', file, binary.package ?? '.'], {
    cwd: source,
    env: { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOWORK: 'off' },
  });
  await Promise.all(aliases.map((alias) => symlink(basename(file), join(dirname(file), alias))));
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
  const values = module.variables?.((name) => pinned(name, source)) ?? [];
  const variables = values.map(([variable, value]) => `-X ${variable}=${value}`);
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
