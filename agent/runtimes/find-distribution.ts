import type { Located } from './containerd-registry.ts';
import { DISTRIBUTIONS, type Distribution, type Sign } from './distributions.ts';
import { flagOf, type HostProcess } from './host-processes.ts';
import type { NodeSight } from './node-sight.ts';
import type { NodeView } from './node-view.ts';

export interface FoundDistribution {
  readonly distribution: Located<Distribution>;
  readonly runtime: NodeSight['runtime'];
  readonly socket: Located<string> | undefined;
}

/**
 * Which distribution the node is of, and which socket its kubelet asks. Several may have left their signs: the one
 * whose configuration a running containerd was started with counts, then one whose socket is there, then the first.
 */
export async function findDistribution(
  view: NodeView,
  processes: readonly HostProcess[],
): Promise<FoundDistribution> {
  const osRelease = await readOsRelease(view);
  const candidates: Located<Distribution>[] = [];
  for (const value of DISTRIBUTIONS) {
    const source = await signOf(view, value, osRelease);
    if (source !== undefined) candidates.push({ value, source });
  }
  const endpoint = await kubeletEndpoint(view, processes);
  const distribution = await choose(view, candidates, { processes, endpoint });
  const socket = endpoint ?? (await socketOf(view, distribution.value));
  return { distribution, socket, runtime: runtimeOf(distribution, socket, processes) };
}

async function choose(
  view: NodeView,
  candidates: readonly Located<Distribution>[],
  { processes, endpoint }: { processes: readonly HostProcess[]; endpoint: Located<string> | undefined },
): Promise<Located<Distribution>> {
  for (const process of processes) {
    const config = flagOf(process, '--config', '-c');
    const running = candidates.find(({ value }) => config !== undefined && isOwn(value, config));
    if (running !== undefined) return running;
  }
  for (const candidate of candidates) {
    // One that cannot be configured at all is told by the host itself, not by what runs there.
    if (candidate.value.refusal !== undefined) return candidate;
    for (const socket of candidate.value.sockets)
      if (socket === endpoint?.value || (endpoint === undefined && (await view.exists(socket))))
        return candidate;
  }
  const [first] = candidates;
  if (first === undefined) throw new Error('no distribution is without signs');
  return first;
}

/** `/etc/containerd` is nobody's own. */
function isOwn({ configFiles }: Distribution, config: string): boolean {
  return configFiles.includes(config) && !config.startsWith('/etc/containerd/');
}

async function signOf(
  view: NodeView,
  { signs }: Distribution,
  osRelease: OsRelease,
): Promise<string | undefined> {
  for (const list of signs) {
    const sources = await Promise.all(list.map((sign) => sourceOf(view, sign, osRelease)));
    if (!sources.includes(undefined)) return sources.length === 0 ? 'no sign of another' : sources.join(', ');
  }
  return undefined;
}

async function sourceOf(view: NodeView, sign: Sign, osRelease: OsRelease): Promise<string | undefined> {
  if (sign.path !== undefined) return (await view.exists(sign.path)) ? sign.path : undefined;
  const found = osRelease.get(sign.key);
  return found?.value === sign.is ? found.source : undefined;
}

type OsRelease = ReadonlyMap<string, Located<string>>;

/** os-release(5) */
async function readOsRelease(view: NodeView): Promise<OsRelease> {
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    const file = await view.file(path);
    if (file === undefined) continue;
    const lines = file.text.split('\n').entries();
    return new Map(
      lines.flatMap(([index, line]): [string, Located<string>][] => {
        const [, key, value] = /^([A-Z_]+)=["']?(.*?)["']?\s*$/.exec(line) ?? [];
        return key === undefined || value === undefined
          ? []
          : [[key, { value, source: `${path}:${index + 1} (${key}=${value})` }]];
      }),
    );
  }
  return new Map();
}

/** Where kubelets and the tools that set them up keep the endpoint. */
const KUBELET_FILES = [
  '/var/lib/kubelet/kubeadm-flags.env',
  '/var/lib/kubelet/instance-config.yaml',
  '/var/lib/kubelet/config.yaml',
  '/etc/kubernetes/kubelet/config.json',
  '/etc/default/kubelet',
];
const ENDPOINT = /container-?runtime-?endpoint["']?\s*[=:]?\s*["']?(?:unix:\/\/)?(\/[^\s"',]+)/i;

async function kubeletEndpoint(
  view: NodeView,
  processes: readonly HostProcess[],
): Promise<Located<string> | undefined> {
  for (const process of processes) {
    const flag = flagOf(process, '--container-runtime-endpoint')?.replace(/^unix:\/\//, '');
    if (flag !== undefined)
      return { value: plainSocket(flag), source: `the command line of process ${process.pid}` };
  }
  for (const path of KUBELET_FILES) {
    const file = await view.file(path);
    const lines = file?.text.split('\n') ?? [];
    for (const [index, line] of lines.entries()) {
      const socket = ENDPOINT.exec(line)?.[1];
      if (socket !== undefined) return { value: plainSocket(socket), source: `${path}:${index + 1}` };
    }
  }
  return undefined;
}

/** `/var/run` is `/run` wherever there is a runtime. */
function plainSocket(path: string): string {
  return path.replace(/^\/var\/run\//, '/run/');
}

async function socketOf(view: NodeView, { sockets }: Distribution): Promise<Located<string> | undefined> {
  for (const value of sockets)
    if (await view.exists(value)) return { value, source: 'where this distribution has it' };
  return undefined;
}

function runtimeOf(
  { value, source }: Located<Distribution>,
  socket: Located<string> | undefined,
  processes: readonly HostProcess[],
): NodeSight['runtime'] {
  if (socket?.value.includes('/crio')) return { value: 'cri-o', source: socket.value };
  if (socket !== undefined && /dockerd|dockershim/.test(socket.value))
    return { value: 'docker', source: socket.value };
  if (socket !== undefined) return { value: 'containerd', source: socket.value };
  const crio = processes.find(({ args: [name = ''] }) => name.endsWith('/crio') || name === 'crio');
  if (crio !== undefined) return { value: 'cri-o', source: `process ${crio.pid}` };
  return { value: value.runtime, source };
}
