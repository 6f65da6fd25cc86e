// A node of one's own whose containerd is a service of a real systemd: in namespaces of its own, with what /etc and
// /run have in memory, and everything else read-only. It ends with its process.

import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { provide } from '../tools/cache.ts';
import { start } from '../tools/child.ts';
import { onPath, run } from '../tools/command.ts';
import { goModule } from '../tools/go-module.ts';
import { recipe, type Version } from './containerd.ts';

export type SystemdNode = {
  /** Where its file system is seen from here. */
  readonly root: string;
  /** Runs a command of the machine on the node. */
  inside: (command: string, ...args: string[]) => Promise<string>;
  /** As the kubelet does, through CRI. */
  pull: (reference: string) => Promise<void>;
  /** What `config dump` makes of its configuration file. */
  dump: () => Promise<string>;
  /** What tells one run of its containerd from the next. */
  run: () => Promise<string>;
  stop: () => Promise<void>;
};

export const socket = '/run/containerd/containerd.sock';
export const configFile = '/etc/containerd/config.toml';
const systemd = '/usr/lib/systemd/systemd';
const patience = 30_000;

/** Why this machine cannot have such nodes, in one sentence. */
export async function missingSystemd(): Promise<string | undefined> {
  const absent =
    (await onPath('dbus-daemon')) && (await onPath('systemctl')) ? undefined : 'not found on PATH';
  return absent === undefined ? undefined : `systemd and dbus-daemon (Debian: systemd, dbus) ${absent}`;
}

/** A node whose containerd runs with this configuration; without one, it has no file. */
export async function startNode(
  version: Version,
  scratch: string,
  configuration: string | undefined,
  killMode = 'process',
): Promise<SystemdNode> {
  const containerd = join(await provide(recipe(version)), 'containerd');
  const criPull = join(await provide(goModule('containerd')), 'cri-pull');
  const name = `weir-${randomUUID()}`;
  const cgroup = join(await cgroupRoot(), name);
  const files = join(scratch, name);
  await mkdir(files);
  for (const [unit, text] of Object.entries(units(containerd, killMode)))
    await writeFile(join(files, unit), text);
  if (configuration !== undefined) await writeFile(join(files, 'config.toml'), configuration);
  const script = join(files, 'start.sh');
  await writeFile(script, startScript(files, configuration !== undefined));
  await mkdir(cgroup);
  const own = [
    '--pid',
    '--fork',
    '--kill-child',
    '--mount',
    '--mount-proc',
    '--cgroup',
    '--propagation',
    'private',
  ];
  const enter = `echo $$ > ${cgroup}/cgroup.procs && exec unshare ${own.join(' ')} sh ${script}`;
  const daemon = await start('sh', ['-c', enter], {
    env: { PATH: process.env['PATH'], container: 'weir' },
    ready: async (child) => {
      for (const until = Date.now() + patience; ; await setTimeout(100)) {
        child.mustRun();
        const root = join('/proc', String(child.pid), 'root');
        const names: readonly string[] = await readdir(join(root, 'run/containerd')).catch(() => []);
        if (names.includes('containerd.sock')) return;
        if (Date.now() > until)
          throw new Error(`containerd did not start:\n${child.lines.slice(-30).join('\n')}`);
      }
    },
  });
  const ns = `/proc/${daemon.pid}/ns`;
  const inside = (command: string, ...args: string[]): Promise<string> =>
    run('nsenter', [`--mount=${ns}/mnt`, `--pid=${ns}/pid_for_children`, '--', command, ...args], {
      env: { ...process.env, SYSTEMD_IGNORE_CHROOT: '1' },
    });
  return {
    root: join('/proc', String(daemon.pid), 'root'),
    inside,
    pull: async (reference) => {
      await inside(criPull, socket, reference);
    },
    dump: () => inside(containerd, '--config', configFile, 'config', 'dump'),
    run: () =>
      inside('systemctl', 'show', '--property=InvocationID', '--property=ActiveState', 'containerd.service'),
    stop: async () => {
      await daemon.stop('SIGKILL');
      await removeCgroup(cgroup);
    },
  };
}

function startScript(files: string, hasConfiguration: boolean): string {
  const upper = '-o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work';
  return `set -e
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/dbus /run/weir /run/etc /run/etc-work
mount -t overlay overlay ${upper} /etc
mkdir -p /etc/containerd
cp ${files}/*.service ${files}/*.socket ${files}/*.target /run/systemd/system
rm -f ${configFile}
${hasConfiguration ? `cp ${files}/config.toml ${configFile}` : ''}
# One hierarchy: else systemd makes groups of its own in those of the machine.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec ${systemd} --system --unit=node.target --log-target=console --show-status=no
`;
}

function units(containerd: string, killMode: string): Readonly<Record<string, string>> {
  const bare = '[Unit]\nDefaultDependencies=no\n';
  return {
    'node.target': `${bare}Wants=dbus.socket dbus.service containerd.service\n`,
    'dbus.socket': `${bare}[Socket]\nListenStream=/run/dbus/system_bus_socket\n`,
    'dbus.service': `${bare}Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
`,
    // As containerd's own unit, but for what it waits for.
    'containerd.service': `${bare}StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=${containerd}
Environment=TMPDIR=/run/weir
Delegate=yes
KillMode=${killMode}
Restart=always
RestartSec=1
`,
  };
}

/** Where the one hierarchy of cgroups is in which systemd has its own. */
async function cgroupRoot(): Promise<string> {
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  const [, path] = /^\S+ (\S+) cgroup2 /m.exec(mounts) ?? [];
  if (path === undefined) throw new Error('no cgroup2 is mounted');
  return path;
}

/** Its processes end a moment after their first one. */
async function removeCgroup(cgroup: string): Promise<void> {
  for (let attempt = 0; ; attempt++)
    try {
      await removeTree(cgroup);
      return;
    } catch (error) {
      if (attempt === 50) throw error;
      await setTimeout(100);
    }
}

async function removeTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true }))
    if (entry.isDirectory()) await removeTree(join(directory, entry.name));
  await rmdir(directory);
}
