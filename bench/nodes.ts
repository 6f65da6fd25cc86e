import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout } from 'node:timers/promises';
import { makeScratch, removeScratch } from '../test/tools/scratch.ts';
import { type Child, cpuSeconds, residentMegabytes, startChild } from './child.ts';
import { guardMemory } from './memory-guard.ts';
import { NodesCluster, sumOf } from './nodes-cluster.ts';
import { NodesReports } from './nodes-reports.ts';
import type { Report } from './report.ts';

const CROWD = join(import.meta.dirname, 'nodes-crowd.ts');
const PER_PROCESS = 1_000;
/** As a roll-out on very many nodes is no faster. */
const STARTS_PER_SECOND = 50;
/** Of one process: more than twice what its agents need while the API server keeps up. */
const MOST_MB = 3_000;
const WATCHES = 3;
const IDLE_MS = 60_000;
const EDITS = 3;
const REST_MS = 5_000;
const AWAY_MS = 5_000;
const LOOK_EVERY_MS = 1_000;

/** What one phase cost, and when nodes were done with it. */
interface Phase {
  readonly name: string;
  readonly seconds: number;
  /** Requests that the API server was asked, and those of them that it put off with 429. */
  readonly requests: number;
  readonly refused: number;
  readonly serverCpu: number;
  readonly serverMB: number;
  readonly agentsCpu: number;
  /** Of all agents, both ways. */
  readonly bytes: number;
  /** Files that the server has open after it, nearly all of which are connections. */
  readonly connections: number;
  /** Seconds until agents had the configuration, and until it was said on their nodes. */
  readonly had?: Spread;
  readonly reported?: Spread;
}

interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly last: number;
}

interface Bench {
  readonly cluster: NodesCluster;
  readonly crowds: Child[];
  readonly nodes: number;
  reports: NodesReports;
}

/** What agents on very many nodes cost the API server, and how soon they do what they are told. */
export async function benchNodes(nodes: number): Promise<Report> {
  const scratch = await makeScratch();
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => removeScratch(scratch));
  const cluster = cleanup.use(await NodesCluster.start(scratch, nodes));
  await cluster.serve(5000, ['10.0.0.1', '10.0.0.2']);
  const crowds: Child[] = [];
  cleanup.defer(async () => {
    await Promise.all(crowds.map((crowd) => crowd.stop('SIGKILL')));
  });
  cleanup.use(guardMemory(crowds, MOST_MB));
  const bench: Bench = { cluster, crowds, nodes, reports: await NodesReports.open(cluster) };
  cleanup.defer(() => bench.reports.close());
  const phases: Phase[] = [];
  const run = async (name: string, work: () => Promise<Partial<Phase>>): Promise<void> => {
    const phase = await measure(bench, name, work);
    phases.push(phase);
    // It takes minutes.
    console.error(`${name}: ${phase.seconds.toFixed(1)} s`);
  };

  const initial = 'upstreams: {}\n';
  await cluster.configure(initial);
  await setTimeout(REST_MS);
  await run(`agents start, ${STARTS_PER_SECOND} a second`, async () => {
    const began = Date.now();
    for (let first = 0; first < nodes; first += PER_PROCESS) {
      const crowd = [first, Math.min(PER_PROCESS, nodes - first), nodes, nodes / STARTS_PER_SECOND];
      const parameters = [CROWD, ...crowd.map(String)];
      const command = [`KUBECONFIG=${cluster.agentKubeconfig}`, process.execPath, ...parameters];
      crowds.push(await startChild('env', command, join(scratch, `crowd-${first}.log`)));
    }
    return await settled(bench, initial, began);
  });
  await setTimeout(REST_MS);
  await run(`${IDLE_MS / 1000} s of nothing`, async () => {
    await setTimeout(IDLE_MS);
    return {};
  });
  for (let edit = 1; edit <= EDITS; edit++)
    await run(`edit ${edit}`, async () => await editOnce(bench, `upstreams: {}\n# ${edit}\n`));
  await run(`the API server is killed, and started ${AWAY_MS / 1000} s later`, async () => {
    await cluster.restart(AWAY_MS);
    await watchedAgain(bench);
    return {};
  });
  bench.reports = await NodesReports.open(cluster);
  await run('an edit after that', async () => await editOnce(bench, 'upstreams: {}\n# after\n'));

  return {
    data: { nodes, phases },
    title: `Agents on ${nodes} nodes, and one API server, on ${availableParallelism()} cores`,
    columns: [
      'phase',
      's',
      'had it, s',
      'reported, s',
      'requests',
      '429',
      'server CPU s',
      'server MB',
      'connections',
      'agents CPU s',
      'MB sent and received',
    ],
    rows: phases.map((phase) => [
      phase.name,
      phase.seconds.toFixed(1),
      tellSpread(phase.had),
      tellSpread(phase.reported),
      String(phase.requests),
      String(phase.refused),
      phase.serverCpu.toFixed(1),
      String(phase.serverMB),
      String(phase.connections),
      phase.agentsCpu.toFixed(1),
      (phase.bytes / 1e6).toFixed(1),
    ]),
    notes: [
      `Seconds as median / 99 of 100 / last. Each agent has ${WATCHES} watches; all of them share the cores with the server.`,
    ],
    ok: phases.length === EDITS + 4,
  };
}

/** Resolves when every watch of every agent stands. */
async function watchedAgain({ cluster, nodes }: Bench): Promise<void> {
  const watches = /verb="WATCH"/;
  const ours = /resource="(?:configmaps|daemonsets|endpointslices)"/;
  for (;;) {
    const lines = (await cluster.metrics())
      .split('\n')
      .filter((line) => watches.test(line) && ours.test(line));
    if (sumOf(lines.join('\n'), 'apiserver_longrunning_requests') >= WATCHES * nodes) return;
    await setTimeout(LOOK_EVERY_MS);
  }
}

async function editOnce(bench: Bench, text: string): Promise<Partial<Phase>> {
  const began = Date.now();
  await bench.cluster.configure(text);
  return await settled(bench, text, began);
}

/** Resolves when every node says that it has this configuration. */
async function settled(
  { crowds, reports, nodes }: Bench,
  text: string,
  began: number,
): Promise<Partial<Phase>> {
  const hash = createHash('sha256').update(text).digest('hex');
  const had = (await Promise.all(crowds.map((crowd) => timesIn(crowd, hash)))).flat();
  const said = await reports.all(hash, nodes);
  return { had: spread(had, began), reported: spread(said, began) };
}

/** When the agents of one process had a configuration. */
async function timesIn(crowd: Child, hash: string): Promise<number[]> {
  for (;;) {
    const line = (await crowd.output()).split('\n').find((some) => some.startsWith(`${hash} `));
    if (line !== undefined)
      return line
        .slice(hash.length + 1)
        .split(',')
        .map(Number);
    const { exitCode, signalCode } = crowd.process;
    if (exitCode !== null || signalCode !== null)
      throw new Error(`the agents ended:\n${await crowd.output()}`);
    await setTimeout(LOOK_EVERY_MS);
  }
}

async function measure(bench: Bench, name: string, work: () => Promise<Partial<Phase>>): Promise<Phase> {
  const before = await look(bench);
  const began = performance.now();
  const found = await work();
  const seconds = (performance.now() - began) / 1000;
  const after = await look(bench);
  // A server that was started meanwhile counts from the beginning.
  const since = after.pid === before.pid ? before : { ...before, requests: 0, refused: 0, serverCpu: 0 };
  return {
    name,
    seconds,
    requests: after.requests - since.requests,
    refused: after.refused - since.refused,
    serverCpu: after.serverCpu - since.serverCpu,
    serverMB: after.serverMB,
    agentsCpu: after.agentsCpu - since.agentsCpu,
    bytes: after.bytes - since.bytes,
    connections: after.connections,
    ...found,
  };
}

async function look({ cluster, crowds }: Bench) {
  const metrics = await cluster.metrics();
  const { pid } = cluster;
  return {
    pid,
    requests: sumOf(metrics, 'apiserver_request_total'),
    refused: sumOf(metrics, 'apiserver_request_total', /code="429"/),
    serverCpu: await cpuSeconds(pid),
    serverMB: await residentMegabytes(pid),
    connections: await openSockets(pid),
    agentsCpu: sum(await Promise.all(crowds.map((crowd) => cpuSeconds(crowd.pid)))),
    bytes: sum(await Promise.all(crowds.map((crowd) => bytesOf(crowd.pid)))),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Read and written by a process, for which connections are files as others are (proc_pid_io(5)). */
async function bytesOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/io`, 'utf8');
  return [...text.matchAll(/^[rw]char: (\d+)$/gm)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}

async function openSockets(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

function spread(times: readonly number[], began: number): Spread {
  const sorted = times.map((time) => (time - began) / 1000).toSorted((one, other) => one - other);
  const at = (part: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), last: at(1) };
}

function tellSpread(of: Spread | undefined): string {
  return of === undefined ? '' : [of.p50, of.p99, of.last].map((value) => value.toFixed(2)).join(' / ');
}
