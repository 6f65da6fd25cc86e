// How a test cluster comes up: its files first, then the sandboxes, then the wait until its nodes are ready.

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { s3ServerTool } from '../s3/s3-server-tools.ts';
import { provide } from '../tools/cache.ts';
import { goModule } from '../tools/go-module.ts';
import { nodePrograms } from '../tools/node-programs.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { Authority } from './authority.ts';
import { cgroupName, makeCgroup, removeCgroup, removeLeftCgroups } from './cgroups.ts';
import { Cluster, OUTSIDE } from './cluster.ts';
import { controlPlane, S3 } from './control-plane.ts';
import { workloadImage } from './image.ts';
import { makeAccounts } from './kubeconfig.ts';
import { nodeAddress, nodeName, numbersUpTo } from './layout.ts';
import { lastLines } from './logs.ts';
import { CONTROL_PLANE_NETWORK, networkScript, renewalScript } from './network.ts';
import { CA_BUNDLE, node, type ProxyMode, SANDBOX_IMAGE } from './node.ts';
import { layOut, Sandbox } from './sandbox.ts';
import { makeUpstream, push, upstreamDirectory } from './upstream-files.ts';

export interface ClusterOptions {
  /** How many; 2 if not told. */
  readonly nodes?: number;
  /** How many may be added to them; none if not told. */
  readonly laterNodes?: number;
  /** Files that a node has from its start, content by path, by the node's name. */
  readonly files?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** What a node's containerd is told of registries, in TOML, by the node's name; one directory if not told. */
  readonly registries?: Readonly<Record<string, string>>;
  /** How kube-proxy writes its rules; `nftables` if not told. */
  readonly proxyMode?: ProxyMode;
  /** Whether the cluster has S3, with an empty bucket. */
  readonly s3?: boolean;
  /** Where all its files go, on a file system that can carry overlays; a directory of its own if not told. */
  readonly scratch?: string;
}

/** Images that are there from the start, each answering HTTP on port 8080. */
export const WORKLOADS = [
  'docker.io/library/web:1',
  'ghcr.io/acme/web:1',
  'quay.io/acme/web:1',
  'registry.corp.example/team/web:1',
  'basic.corp.example/team/web:1',
] as const;
const PAUSE_IMAGES = [SANDBOX_IMAGE, 'registry.k8s.io/pause:3.10'];

interface Tools {
  readonly kubernetes: string;
  readonly helm: string;
  /** For `cri-pull`; the containerd that the nodes run is the one of `kubernetes`. */
  readonly containerd: string;
  /** The command, when there is to be S3. */
  readonly minio: string | undefined;
  /** A tree to lay over `/usr`, if the machine lacks something. */
  readonly usr: string;
}

/** What a cluster is called by. */
interface Home {
  readonly directory: string;
  readonly cgroup: string;
}

const START_TIMEOUT_MS = 90_000;
const INTERVAL_MS = 200;
const systemPath = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
const nodesSchema = z.object({
  items: z.array(
    z.object({
      status: z.object({
        conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
      }),
    }),
  ),
});

/** A cluster whose nodes are ready. It ends with this process at the latest. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const tools = await provideTools(options);
  await removeLeftCgroups();
  const suffix = randomBytes(3).toString('hex');
  const scratch = options.scratch ?? (await makeScratch());
  const home = { directory: join(scratch, `cluster-${suffix}`), cgroup: cgroupName(suffix) };
  let outside: Sandbox | undefined;
  const stop = async () => {
    await outside?.stop();
    await removeCgroup(home.cgroup);
    await rm(home.directory, { recursive: true, force: true });
    if (options.scratch === undefined) await removeScratch(scratch);
  };
  try {
    const authority = await Authority.make(join(home.directory, 'authority'));
    await layOutMachines(home, authority, tools, options);
    const around = await Sandbox.outside(join(home.directory, OUTSIDE), tools.usr, environment(home, tools));
    outside = around;
    const boot = (name: string): Promise<Sandbox> => around.machine(join(home.directory, name), name);
    const { nodes = 2, laterNodes = 0 } = options;
    const all = numbersUpTo(nodes + laterNodes);
    const names = [CONTROL_PLANE_NETWORK, ...all.slice(0, nodes).map(nodeName)];
    const places = new Map([[OUTSIDE, around]]);
    await Promise.all(names.map(async (name) => places.set(name, await boot(name))));
    const cluster = new Cluster({
      directory: home.directory,
      nodes: all.map((number) => ({
        name: nodeName(number),
        address: nodeAddress(number),
        boot: async () => {
          // Those of the containers that were would keep the kubelet from starting for seconds each.
          await removeCgroup(`${home.cgroup}/${nodeName(number)}`);
          await makeCgroup(`${home.cgroup}/${nodeName(number)}`);
          await around.exec('sh', '-euc', renewalScript(number, all.length));
          return boot(nodeName(number));
        },
      })),
      ca: await readFile(authority.ca, 'utf8'),
      s3: tools.minio === undefined ? undefined : S3,
      places,
      stop,
    });
    await allReady(cluster);
    return cluster;
  } catch (error) {
    const logs = await lastLines(home.directory, 5);
    await stop();
    throw new Error(`the cluster did not start: ${String(error)}\n${logs}`, { cause: error });
  }
}

async function provideTools({ s3 = false }: ClusterOptions): Promise<Tools> {
  const programs = await nodePrograms();
  return {
    kubernetes: await provide(goModule('kubernetes')),
    helm: await provide(goModule('helm')),
    containerd: await provide(goModule('containerd')),
    minio: s3 ? join(await provide(s3ServerTool('minio')), 'minio') : undefined,
    usr: programs === undefined ? '' : join(await provide(programs), 'usr'),
  };
}

/** Writes the files of all sandboxes. */
async function layOutMachines(
  { directory, cgroup }: Home,
  authority: Authority,
  { kubernetes, minio }: Tools,
  options: ClusterOptions,
): Promise<void> {
  const { nodes = 2, laterNodes = 0 } = options;
  const numbers = numbersUpTo(nodes + laterNodes);
  const accounts = makeAccounts(numbers.length);
  await makeUpstream(directory, authority);
  for (const image of PAUSE_IMAGES) await push(directory, image, await workloadImage(image, 'pause'));
  for (const image of WORKLOADS) await push(directory, image, await workloadImage(image));
  await layOut(join(directory, OUTSIDE), {
    setup: networkScript(numbers.length),
    services: {
      upstream: [process.execPath, join(import.meta.dirname, 'upstream.ts'), upstreamDirectory(directory)],
    },
  });
  const control = join(directory, CONTROL_PLANE_NETWORK);
  await layOut(control, await controlPlane({ directory: control, authority, accounts, minio }));
  if (minio !== undefined) await mkdir(join(control, 's3', S3.bucket), { recursive: true });
  for (const [index, account] of accounts.nodes.entries()) {
    const number = index + 1;
    const name = nodeName(number);
    await makeCgroup(`${cgroup}/${name}`);
    const files = await node({
      number,
      ca: authority.ca,
      account,
      proxy: accounts.proxy,
      proxyMode: options.proxyMode ?? 'nftables',
      cgroup: `/${cgroup}/${name}`,
      cni: join(kubernetes, 'cni'),
      ...(options.registries?.[name] === undefined ? {} : { registries: options.registries[name] }),
      files: options.files?.[name] ?? {},
    });
    await layOut(join(directory, name), files);
  }
}

function environment({ directory }: Home, { kubernetes, helm, containerd }: Tools): NodeJS.ProcessEnv {
  return {
    // The sandboxes' Node runs TypeScript as it is, and is this process's own.
    PATH: [kubernetes, helm, containerd, dirname(process.execPath), ...systemPath].join(':'),
    HOME: join(directory, 'home'),
    KUBECONFIG: '/etc/kubernetes/admin.conf',
    SSL_CERT_FILE: CA_BUNDLE,
  };
}

async function allReady(cluster: Cluster): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    const problem = await notReady(cluster).catch((error: unknown) => String(error));
    if (problem === undefined) return;
    if (Date.now() > deadline) throw new Error(`after ${START_TIMEOUT_MS / 1000} s: ${problem}`);
    await setTimeout(INTERVAL_MS);
  }
}

async function notReady(cluster: Cluster): Promise<string | undefined> {
  const { items } = nodesSchema.parse(JSON.parse(await cluster.kubectl('get', '--raw', '/api/v1/nodes')));
  const ready = items.filter(({ status }) =>
    status.conditions.some((condition) => condition.type === 'Ready' && condition.status === 'True'),
  );
  if (ready.length < cluster.nodes.length)
    return `${ready.length} of ${cluster.nodes.length} nodes are ready`;
  // Without it no Pod may be made.
  await cluster.kubectl('--namespace', 'default', 'get', 'serviceaccount', 'default');
  return undefined;
}
