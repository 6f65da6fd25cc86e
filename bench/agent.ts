import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { startContainerd } from '../test/containerd/containerd.ts';
import { startMirror } from '../test/support/mirror.ts';
import { makeScratch, removeScratch } from '../test/tools/scratch.ts';
import { cpuSeconds, peakMegabytes, residentMegabytes } from './child.ts';
import { NodesCluster } from './nodes-cluster.ts';
import type { Report } from './report.ts';
import { type Sample, sampleOf } from './sample.ts';
import { ShippedAgent } from './shipped-agent.ts';

const UPSTREAMS = 10;
const EDITS = 50;
const PROVEN_EDITS = 10;
const IDLE_MS = 60_000;
/** After an edit, so that the next one finds an agent that is done. */
const REST_MS = 200;
/** The agent is to stay below, in MB. */
const TARGET_MB = 90;
/** Of a processor, when idle. */
const TARGET_IDLE = 0.001;
const LOOK_EVERY_MS = 1;
const ASK_EVERY_MS = 20;
const PROVEN = /result="proven"/;

/** How soon an edit of the ConfigMap is on the disk of a node and proven there, and what the agent takes. */
export async function benchAgent(): Promise<Report> {
  const scratch = await makeScratch();
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => removeScratch(scratch));
  const certsDir = join(scratch, 'certs.d');
  await mkdir(certsDir);
  const cluster = cleanup.use(await NodesCluster.start(scratch, 1));
  const containerd = await startContainerd('2.3', certsDir, scratch);
  cleanup.defer(() => containerd.stop());
  // The socket is in a file system of containerd's own.
  const criSocket = join(scratch, 'cri.sock');
  cleanup.use(await relay({ path: criSocket }, { path: join(containerd.root, containerd.socket) }));
  const mirror = await startMirror('upstreams: {}\n');
  cleanup.defer(() => mirror.close());
  const address = ownAddress();
  const door = await relay(
    { host: address, port: 0 },
    { host: '127.0.0.1', port: Number(new URL(mirror.url).port) },
  );
  cleanup.use(door);
  await cluster.serve(door.port, [address]);

  const texts = Array.from({ length: EDITS + PROVEN_EDITS + 1 }, (_, index) => configuration(index));
  const edit = async (index: number): Promise<number> => {
    const began = performance.now();
    const written = cluster.configure(texts[index] ?? '');
    await fileOf(certsDir, index);
    const took = performance.now() - began;
    await written;
    return took;
  };
  await cluster.configure(texts[0] ?? '');
  const agent = await ShippedAgent.start({
    directory: scratch,
    kubeconfig: cluster.agentKubeconfig,
    certsDir,
    criSocket,
  });
  cleanup.defer(() => agent.stop());
  await fileOf(certsDir, 0);
  await proofs(agent, 0);
  await setTimeout(IDLE_MS / 6);
  const startedMB = await residentMegabytes(agent.pid);

  const proven: number[] = [];
  for (let index = 1; index <= PROVEN_EDITS; index++) {
    const before = (await agent.metric('weir_agent_proofs_total', PROVEN)) ?? 0;
    const began = performance.now();
    await edit(index);
    await proofs(agent, before);
    proven.push(performance.now() - began);
  }
  const written: number[] = [];
  for (let index = PROVEN_EDITS + 1; index <= PROVEN_EDITS + EDITS; index++) {
    written.push(await edit(index));
    await setTimeout(REST_MS);
  }
  const editedMB = await residentMegabytes(agent.pid);
  // The last proof is over by then.
  await setTimeout(IDLE_MS / 6);
  const before = await cpuSeconds(agent.pid);
  await setTimeout(IDLE_MS);
  const idle = ((await cpuSeconds(agent.pid)) - before) / (IDLE_MS / 1000);
  const idleMB = await residentMegabytes(agent.pid);
  const peakMB = await peakMegabytes(agent.pid);
  return {
    data: { written, proven, startedMB, editedMB, idleMB, peakMB, idle },
    title: 'The agent of one node, as the image has it',
    columns: ['what', 'median', 'p99', 'of'],
    rows: [
      ['edit to file, ms', ...tellTimes(written)],
      ['edit to proof, ms', ...tellTimes(proven)],
      ['resident after the start, MB', String(startedMB), '', ''],
      [`resident after ${EDITS + PROVEN_EDITS} edits, MB`, String(editedMB), '', ''],
      [`resident after ${IDLE_MS / 1000} s of nothing, MB`, String(idleMB), String(peakMB), 'peak'],
      ['processor when idle, %', (idle * 100).toFixed(2), '', ''],
    ],
    notes: [
      `A proof waits 0.5 to 2.5 s for further changes. Memory is to stay below ${TARGET_MB} MB, and the processor below ${TARGET_IDLE * 100} %.`,
    ],
    ok: Math.max(startedMB, editedMB, idleMB) <= TARGET_MB && idle <= TARGET_IDLE,
  };
}

/** As many upstreams as a cluster may have, of which each edit brings a new one and takes the oldest away. */
function configuration(index: number): string {
  const hosts = Array.from({ length: UPSTREAMS }, (_, number) => `  ${hostOf(index + number)}: {}\n`);
  return `upstreams:\n${hosts.join('')}`;
}

function hostOf(index: number): string {
  return `registry-${index}.example`;
}

/** Resolves when the file is there that this configuration is the first to bring. */
async function fileOf(certsDir: string, index: number): Promise<void> {
  const file = join(certsDir, hostOf(index + UPSTREAMS - 1), 'hosts.toml');
  while (!existsSync(file)) await setTimeout(LOOK_EVERY_MS);
}

/** Resolves when there were more proofs than so many. */
async function proofs(agent: ShippedAgent, before: number): Promise<void> {
  while (((await agent.metric('weir_agent_proofs_total', PROVEN)) ?? 0) <= before)
    await setTimeout(ASK_EVERY_MS);
}

function tellTimes(times: readonly number[]): string[] {
  const { median }: Sample = sampleOf(times);
  const sorted = times.toSorted((one, other) => one - other);
  const p99 = sorted[Math.ceil(sorted.length * 0.99) - 1] ?? Number.NaN;
  return [median.toFixed(0), p99.toFixed(0), String(times.length)];
}

/** An address of this machine that others could reach. @throws Error when it has none. */
function ownAddress(): string {
  const found = Object.values(networkInterfaces())
    .flatMap((some) => some ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal);
  if (found === undefined) throw new Error('this machine has no IPv4 address besides those of loopback');
  return found.address;
}

type Place = { readonly path: string } | { readonly host: string; readonly port: number };

/** Hands connections on. */
async function relay(from: Place, to: Place): Promise<AsyncDisposable & { readonly port: number }> {
  const server: Server = createServer((one) => {
    const other = connect(to);
    one.on('error', () => other.destroy()).pipe(other);
    other.on('error', () => one.destroy()).pipe(one);
    one.once('close', () => other.destroy());
    other.once('close', () => one.destroy());
  });
  server.listen(from);
  await once(server, 'listening');
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    [Symbol.asyncDispose]: () => {
      server.close();
      return Promise.resolve();
    },
  };
}
