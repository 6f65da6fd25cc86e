import { cpuSeconds, peakMegabytes } from './child.ts';
import { ContainerdClient, isRight } from './containerd-client.ts';
import type { BenchOptions, Report } from './report.ts';
import { type Sample, sampleOf, tell } from './sample.ts';
import { Scene } from './scene.ts';
import type { Pushed } from './upstream-control.ts';
import { HOST, type WeirProcess } from './weir-process.ts';

const GIB = 1024 ** 3;
const ROUNDS = 3;
const MANIFEST_CONNECTIONS = 16;
const MANIFEST_MS = 3_000;
/** Enough for the store to be filled soon. */
const NEAR = { roundTripMs: 0, bytesPerSecond: 1_000_000_000 };

interface Load {
  readonly name: string;
  readonly clients: number;
  readonly size: number;
  /** Blobs that each client reads, one after the other. */
  readonly blobs: number;
}

const LOADS: readonly Load[] = [
  { name: 'blob, 8 clients × 1 GiB', clients: 8, size: GIB, blobs: 1 },
  { name: 'blob, 32 clients × 10 MB', clients: 32, size: 10_000_000, blobs: 10 },
];

interface Measured {
  readonly name: string;
  readonly unit: 'GiB' | '1000 requests';
  /** Units in a second. */
  readonly rate: Sample;
  /** Of weir. */
  readonly cpuSecondsPerUnit: Sample;
  /** Of the S3 server, which uses the same processors. */
  readonly serverCpuSecondsPerUnit: Sample | undefined;
}

interface Served {
  readonly weir: WeirProcess;
  /** Of its S3 server. */
  readonly serverPid: number | undefined;
}

/** What weir has in its store, read by many at once. */
export async function benchHot(options: BenchOptions): Promise<Report> {
  await using scene = await Scene.open({ tokens: options.tokens });
  const { store } = options;
  const nodeFlags = options.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${options.profile}`];
  const weir = await scene.startWeir({ nodeFlags, ...(store === undefined ? {} : { store }) });
  await scene.upstream.setLink(NEAR);
  const image = await scene.upstream.push(LOADS.map(({ size }) => size));
  const client = clientOf(weir);
  await client.pull(image);
  await weir.settled();
  client.close();

  const served = { weir, serverPid: options.serverPid };
  const measured: Measured[] = [];
  for (const [index, load] of LOADS.entries()) measured.push(await readBlobs(served, image, load, index));
  measured.push(await readManifests(served, image));
  const peakMB = await peakMegabytes(weir.pid);
  await weir.stop();
  return {
    data: { measured, peakMB },
    title: 'From the store; median (least–most) of rounds',
    columns: ['what', 'rate', 'weir CPU s', 'S3 CPU s'],
    rows: measured.map(({ name, unit, rate, cpuSecondsPerUnit, serverCpuSecondsPerUnit: server }) => [
      name,
      `${tell(rate, 2)} ${unit}/s`,
      `${tell(cpuSecondsPerUnit, 3)} per ${unit}`,
      server === undefined ? '' : `${tell(server, 3)} per ${unit}`,
    ]),
    notes: [
      'CPU is the steady figure: the clients use the same processors.',
      `Memory of weir at its peak: ${peakMB} MB`,
    ],
    ok: true,
  };
}

async function readBlobs(served: Served, image: Pushed, load: Load, layer: number): Promise<Measured> {
  const { weir } = served;
  const blob = image.layers[layer];
  if (blob === undefined) throw new Error('the image has no such layer');
  const units = (load.clients * load.blobs * load.size) / GIB;
  return await measure(served, { name: load.name, unit: 'GiB' }, async () => {
    const read = async (): Promise<void> => {
      const client = clientOf(weir);
      for (let count = 0; count < load.blobs; count += 1)
        if (!isRight(await client.blob(image.repository, blob)))
          throw new Error('a warm blob was not served');
      client.close();
    };
    await Promise.all(Array.from({ length: load.clients }, read));
    return units;
  });
}

async function readManifests(served: Served, { repository, manifest }: Pushed): Promise<Measured> {
  const { weir } = served;
  const name = `manifest, ${MANIFEST_CONNECTIONS} connections`;
  return await measure(served, { name, unit: '1000 requests' }, async () => {
    const until = performance.now() + MANIFEST_MS;
    let requests = 0;
    const read = async (): Promise<void> => {
      const client = clientOf(weir);
      while (performance.now() < until) {
        const { status } = await client.manifest(repository, manifest.digest);
        if (status !== 200) throw new Error(`a warm manifest was answered ${status}`);
        requests += 1;
      }
      client.close();
    };
    await Promise.all(Array.from({ length: MANIFEST_CONNECTIONS }, read));
    return requests / 1000;
  });
}

/** `work` says how many units it did. */
async function measure(
  { weir, serverPid }: Served,
  what: Pick<Measured, 'name' | 'unit'>,
  work: () => Promise<number>,
): Promise<Measured> {
  const rates: number[] = [];
  const costs: number[] = [];
  const serverCosts: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = await cpuSeconds(weir.pid);
    const serverBefore = serverPid === undefined ? 0 : await cpuSeconds(serverPid);
    const began = performance.now();
    const units = await work();
    rates.push((units * 1000) / (performance.now() - began));
    costs.push(((await cpuSeconds(weir.pid)) - before) / units);
    if (serverPid !== undefined) serverCosts.push(((await cpuSeconds(serverPid)) - serverBefore) / units);
  }
  return {
    ...what,
    rate: sampleOf(rates),
    cpuSecondsPerUnit: sampleOf(costs),
    serverCpuSecondsPerUnit: serverPid === undefined ? undefined : sampleOf(serverCosts),
  };
}

function clientOf({ url }: WeirProcess): ContainerdClient {
  return new ContainerdClient({ origin: url, ns: HOST });
}
