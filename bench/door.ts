import { join } from 'node:path';
import process from 'node:process';
import { cpuSeconds, peakMegabytes, startChild } from './child.ts';
import { ContainerdClient, isRight } from './containerd-client.ts';
import type { BenchOptions, Report } from './report.ts';
import { sampleOf, tell } from './sample.ts';
import { Scene } from './scene.ts';
import { asShipped } from './shipped-agent.ts';
import { HOST } from './weir-process.ts';

const GIB = 1024 ** 3;
const CLIENTS = 8;
const ROUNDS = 5;
/** Seconds of processor time for a GiB that the door may take. */
const MOST_CPU = 0.5;
const PROGRAM = join(import.meta.dirname, 'door-process.ts');
const NEAR = { roundTripMs: 0, bytesPerSecond: 1_000_000_000 };

/** What the door of a node adds to a pull of what the registry has, in the Node that the DaemonSet makes of it. */
export async function benchDoor({ profile }: BenchOptions): Promise<Report> {
  await using scene = await Scene.open();
  await scene.upstream.setLink(NEAR);
  const weir = await scene.startWeir();
  const image = await scene.upstream.push([GIB]);
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('the image has no layer');
  const { environment, flags } = await asShipped();
  const profiled = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const node = [...environment, process.execPath, ...flags, ...profiled, PROGRAM, new URL(weir.url).host];
  const door = await startChild('env', node, join(scene.directory, 'door.log'));
  scene.defer(() => door.stop('SIGTERM'));
  const url = await door.match(/^(http:\S+)$/m);

  const read = async (origin: string): Promise<void> => {
    const client = new ContainerdClient({ origin, ns: HOST });
    if (!isRight(await client.blob(image.repository, layer))) throw new Error('a blob was not served');
    client.close();
  };
  const throughDoor: number[] = [];
  const directly: number[] = [];
  const costs: number[] = [];
  const timed = async (origin: string): Promise<number> => {
    const began = performance.now();
    await Promise.all(Array.from({ length: CLIENTS }, () => read(origin)));
    return (CLIENTS * 1000) / (performance.now() - began);
  };
  await new ContainerdClient({ origin: weir.url, ns: HOST }).pull(image);
  await weir.settled();
  await timed(url);
  for (let round = 0; round < ROUNDS; round += 1) {
    directly.push(await timed(weir.url));
    const before = await cpuSeconds(door.pid);
    throughDoor.push(await timed(url));
    costs.push(((await cpuSeconds(door.pid)) - before) / CLIENTS);
  }
  const peakMB = await peakMegabytes(door.pid);
  const cpu = sampleOf(costs);
  return {
    data: { cpuSecondsPerGiB: cpu, throughDoor, directly, peakMB },
    title: `Through the door, ${CLIENTS} clients × 1 GiB; median (least–most) of rounds`,
    columns: ['what', 'value'],
    rows: [
      ['processor time of the door, s/GiB', tell(cpu, 3)],
      ['GiB/s through the door', tell(sampleOf(throughDoor), 2)],
      ['GiB/s from the registry directly', tell(sampleOf(directly), 2)],
      ['memory of the door at its peak, MB', String(peakMB)],
    ],
    notes: [`The door is to take at most ${MOST_CPU} s/GiB. Clients and registry use the same processors.`],
    ok: cpu.median <= MOST_CPU,
  };
}
