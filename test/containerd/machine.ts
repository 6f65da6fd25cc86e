// One machine as the tests see it: its containerd, the directory that weir writes for it, and weir itself,
// which comes and goes.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Containerd, startContainerd, type Version } from './containerd.ts';
import { freePort } from './port.ts';
import type { Upstream } from './upstream.ts';
import { eventually, rollBack, startWeir, type Weir } from './weir.ts';

export type Machine = {
  readonly containerd: Containerd;
  /** Starts weir with what it kept, unless it runs. */
  weirUp: () => Promise<void>;
  /** Ends weir as the machine's init does; its exit code, undefined when it did not run. */
  weirDown: () => Promise<number | NodeJS.Signals | undefined>;
  /** Waits until weir's log has an answer to containerd for one of these paths, as of the registry named. */
  weirAnswered: (registry: string, paths: readonly string[]) => Promise<void>;
  rollBack: () => Promise<void>;
  configure: (settings: Record<string, unknown>) => Promise<void>;
  /** The hosts file of a registry, undefined when there is none. */
  hostsFile: (registry: string) => Promise<string | undefined>;
  stop: () => Promise<void>;
};

type MachineOptions = {
  version: Version;
  scratch: string;
  upstreams: ReadonlyMap<string, Upstream>;
  /** Hosts files that were there before weir came, by registry. */
  ownHostsFiles: ReadonlyMap<string, string>;
};

export async function startMachine({
  version,
  scratch,
  upstreams,
  ownHostsFiles,
}: MachineOptions): Promise<Machine> {
  const directory = join(scratch, version);
  const paths = {
    config: join(directory, 'config', 'config.yaml'),
    data: join(directory, 'data'),
    certs: join(directory, 'certs.d'),
    state: join(directory, 'state'),
  };
  for (const path of [join(directory, 'config'), paths.data, paths.certs])
    await mkdir(path, { recursive: true });
  const hostsFileOf = (registry: string) => join(paths.certs, registry, 'hosts.toml');
  for (const [registry, content] of ownHostsFiles) {
    await mkdir(join(paths.certs, registry), { recursive: true });
    await writeFile(hostsFileOf(registry), content);
  }
  const endpoints = [...upstreams].map(([registry, { endpoint }]) => [registry, { endpoint }] as const);
  const configure = (settings: Record<string, unknown>) =>
    // JSON is YAML.
    writeFile(
      paths.config,
      JSON.stringify({ upstreams: Object.fromEntries(endpoints), ...settings }, null, 2),
    );
  await configure({});

  const listen = `127.0.0.1:${await freePort()}`;
  const containerd = await startContainerd(version, paths.certs, directory);
  let weir: Weir | undefined;
  const weirDown = async () => {
    const code = await weir?.stop();
    weir = undefined;
    return code;
  };
  return {
    containerd,
    configure,
    weirDown,
    weirUp: async () => {
      weir ??= await startWeir({ ...paths, listen });
    },
    weirAnswered: (registry, paths) => {
      const asked = paths.map((path) => `"url":"${path}?ns=${registry}"`);
      const isLogged = async () =>
        weir?.lines.some((line) => asked.some((url) => line.includes(url))) ?? false;
      return eventually(`weir answers ${asked.join(' or ')}`, isLogged);
    },
    rollBack: () => rollBack(paths.certs, paths.state),
    hostsFile: (registry) => readFile(hostsFileOf(registry), 'utf8').catch(absent),
    stop: async () => {
      try {
        await weirDown();
      } finally {
        await containerd.stop();
      }
    },
  };
}

function absent(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
  throw error;
}
