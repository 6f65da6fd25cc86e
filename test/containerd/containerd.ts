// A real containerd for one test: it sees the machine's network, where weir and the upstreams are, but lives
// in a mount namespace of its own, in which the machine's files are read-only and all that it keeps is in
// memory. The namespace and everything in it end with the process. Nothing runs in it, so it needs no runc,
// no shim and no CNI.

import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { provide, type Recipe } from '../tools/cache.ts';
import { start } from '../tools/child.ts';
import { run } from '../tools/command.ts';
import { debianContainerd } from '../tools/debian-containerd.ts';
import { goModule } from '../tools/go-module.ts';
import { listFiles } from './files.ts';

export const versions = ['1.6', '1.7', '2.3'] as const;
export type Version = (typeof versions)[number];

export type Containerd = {
  /** As the kubelet does, through CRI. */
  pull: (reference: string) => Promise<void>;
  /** What a container would find in the pulled image. */
  files: (reference: string) => Promise<Map<string, string>>;
  /** All images, with the content and the snapshots that they were made of. */
  removeImages: () => Promise<void>;
  /** The names of its images, their content and their snapshots: all that a pull leaves. */
  holdings: () => Promise<string[]>;
  /** Where its file system is seen from here, with its socket at `/run/weir/containerd.sock` there. */
  readonly root: string;
  readonly socket: string;
  stop: () => Promise<void>;
};

const home = '/run/weir';
const socket = `${home}/containerd.sock`;

export function recipe(version: Version): Recipe {
  if (version === '1.6') return debianContainerd('bookworm');
  if (version === '1.7') return debianContainerd('trixie');
  return goModule('containerd');
}

/**
 * Starts a containerd whose CRI reads the registries' hosts from `certs`, or whose CRI has this TOML as its table
 * `registry`; `scratch` is for its configuration.
 */
export async function startContainerd(
  version: Version,
  certs: string,
  scratch: string,
  registry = `config_path = ${JSON.stringify(certs)}`,
): Promise<Containerd> {
  const tools = await provide(recipe(version));
  const criPull = join(await provide(goModule('containerd')), 'cri-pull');
  const configuration = join(scratch, `containerd-${version}.toml`);
  await writeFile(configuration, version === '2.3' ? configurationV3(registry) : configurationV2(registry));
  const { command, args } = namespaceCommand(join(tools, 'containerd'), '--config', configuration);
  const { PATH } = process.env;
  const daemon = await start(command, args, {
    env: { PATH, TMPDIR: home },
    ready: (child) => child.line(/containerd successfully booted/),
  });

  const inside = (command: string, ...args: string[]) =>
    run('nsenter', ['--mount', `--target=${daemon.pid}`, command, ...args]);
  const ctr = (...args: string[]) =>
    inside(join(tools, 'ctr'), '--address', socket, '--namespace', 'k8s.io', ...args);
  const list = async (...args: string[]) => (await ctr(...args)).split('\n').filter((line) => line !== '');
  return {
    pull: async (reference) => {
      await inside(criPull, socket, reference);
    },
    files: async (reference) => {
      // A name of its own each time: 2.3 may still be letting go of the last one.
      const mountPoint = join(home, randomUUID());
      const seenFromHere = join('/proc', String(daemon.pid), 'root', mountPoint);
      await mkdir(seenFromHere);
      await ctr('images', 'mount', reference, mountPoint);
      try {
        return await listFiles(seenFromHere);
      } finally {
        await ctr('images', 'unmount', '--rm', mountPoint);
      }
    },
    removeImages: async () => {
      const names = await list('images', 'ls', '-q');
      if (names.length > 0) await ctr('images', 'rm', '--sync', ...names);
      const left = await list('content', 'ls', '-q');
      if (left.length > 0)
        throw new Error(`containerd kept the content of removed images: ${left.join(', ')}`);
    },
    holdings: async () => [
      ...(await list('images', 'ls', '-q')),
      ...(await list('content', 'ls', '-q')),
      ...(await list('snapshots', 'ls')).slice(1),
    ],
    root: join('/proc', String(daemon.pid), 'root'),
    socket,
    stop: async () => {
      await daemon.stop();
    },
  };
}

/** The command in a mount namespace of its own, in which it can write nothing but `/run`, in memory. */
export function namespaceCommand(...command: readonly string[]): { command: string; args: string[] } {
  const script = `mount -o remount,bind,ro / && mount -t tmpfs tmpfs /run && mkdir ${home} && exec "$@"`;
  return {
    command: 'unshare',
    args: ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', ...command],
  };
}

function configurationV2(registry: string): string {
  return `version = 2
${ownDirectories}
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "${home}/cni"
bin_dir = "${home}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
${registry}
`;
}

function configurationV3(registry: string): string {
  return `version = 3
${ownDirectories}
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "${home}/cni"
bin_dirs = ["${home}/cni"]
[plugins."io.containerd.cri.v1.images".registry]
${registry}
`;
}

const ownDirectories = `root = "${home}/root"
state = "${home}/state"
[grpc]
address = "${socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "${home}/opt"`;
