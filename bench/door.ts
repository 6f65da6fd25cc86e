import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { issue, makeAuthority } from '../webhook/x509.ts';
import { type Child, cpuSeconds, peakMegabytes, startChild } from './child.ts';
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
const NAME = 'weir.weir.svc';

/** The door of a node, and what was measured of it. */
interface BenchedDoor {
  readonly child: Child;
  readonly url: string;
  /** Seconds of processor time for a GiB, and GiB in a second, by rounds. */
  readonly costs: number[];
  readonly speeds: number[];
}

/** What the door of a node adds to a pull of what the registry has, in the Node that the DaemonSet makes of it, without and with TLS. */
export async function benchDoor({ profile }: BenchOptions): Promise<Report> {
  await using scene = await Scene.open();
  await scene.upstream.setLink(NEAR);
  const weir = await scene.startWeir();
  const image = await scene.upstream.push([GIB]);
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('the image has no layer');
  await new ContainerdClient({ origin: weir.url, ns: HOST }).pull(image);
  await weir.settled();
  // Of the same store, which it only reads.
  const certDir = await writeCertificate(scene.directory);
  const secure = await scene.startWeir({ certDir });

  const openDoor = async (replica: string, ...trust: readonly string[]): Promise<BenchedDoor> => {
    const { environment, flags } = await asShipped();
    const profiled = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
    const node = [...environment, process.execPath, ...flags, ...profiled, PROGRAM];
    const log = join(scene.directory, `door-${trust.length}.log`);
    const child = await startChild('env', [...node, new URL(replica).host, ...trust], log);
    scene.defer(() => child.stop('SIGTERM'));
    return { child, url: await child.match(/^(http:\S+)$/m), costs: [], speeds: [] };
  };
  const read = async (origin: string): Promise<void> => {
    const client = new ContainerdClient({ origin, ns: HOST });
    if (!isRight(await client.blob(image.repository, layer))) throw new Error('a blob was not served');
    client.close();
  };
  const timed = async (origin: string): Promise<number> => {
    const began = performance.now();
    await Promise.all(Array.from({ length: CLIENTS }, () => read(origin)));
    return (CLIENTS * 1000) / (performance.now() - began);
  };
  const plain = await openDoor(weir.url);
  const tls = await openDoor(secure.url, join(certDir, 'ca.crt'), NAME);
  const doors = [plain, tls];
  const directly: number[] = [];
  for (const { url } of doors) await timed(url);
  for (let round = 0; round < ROUNDS; round += 1) {
    directly.push(await timed(weir.url));
    for (const { child, url, costs, speeds } of doors) {
      const before = await cpuSeconds(child.pid);
      speeds.push(await timed(url));
      costs.push(((await cpuSeconds(child.pid)) - before) / CLIENTS);
    }
  }
  const [peakMB, peakMBOverTls] = await Promise.all(doors.map(({ child }) => peakMegabytes(child.pid)));
  const [cpu, cpuOverTls] = [sampleOf(plain.costs), sampleOf(tls.costs)];
  return {
    data: {
      cpuSecondsPerGiB: cpu,
      throughDoor: plain.speeds,
      directly,
      peakMB,
      overTls: { cpuSecondsPerGiB: cpuOverTls, throughDoor: tls.speeds, peakMB: peakMBOverTls },
    },
    title: `Through the door, ${CLIENTS} clients × 1 GiB; median (least–most) of rounds`,
    columns: ['what', 'plain HTTP to the registry', 'TLS'],
    rows: [
      ['processor time of the door, s/GiB', tell(cpu, 3), tell(cpuOverTls, 3)],
      ['GiB/s through the door', tell(sampleOf(plain.speeds), 2), tell(sampleOf(tls.speeds), 2)],
      ['GiB/s from the registry directly', tell(sampleOf(directly), 2), ''],
      ['memory of the door at its peak, MB', String(peakMB), String(peakMBOverTls)],
    ],
    notes: [
      `The door is to take at most ${MOST_CPU} s/GiB, without TLS. Clients and registry use the same processors.`,
    ],
    ok: cpu.median <= MOST_CPU,
  };
}

/** @returns the directory of a certificate, its key, and its authority. */
async function writeCertificate(directory: string): Promise<string> {
  const now = Date.now();
  const period = { from: new Date(now - 3_600_000), to: new Date(now + 86_400_000) };
  const authority = makeAuthority('bench', period);
  const { cert, key } = issue(authority, [NAME], period);
  const place = join(directory, 'tls');
  await mkdir(place);
  const files = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert };
  for (const [name, text] of Object.entries(files)) await writeFile(join(place, name), text);
  return place;
}
