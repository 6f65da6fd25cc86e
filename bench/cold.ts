import { cpuSeconds, peakMegabytes } from './child.ts';
import { ContainerdClient, type Pulled } from './containerd-client.ts';
import type { BenchOptions, Report } from './report.ts';
import { type Sample, sampleOf, tell } from './sample.ts';
import { Scene } from './scene.ts';
import type { Pushed } from './upstream-control.ts';
import { HOST, type WeirProcess } from './weir-process.ts';

const MB = 1_000_000;
const GIB = 1024 ** 3;
/** Two images before anything is measured, so that no side is measured while its code is compiled. */
const WARM_UP: readonly (readonly number[])[] = [[50 * MB], Array.from({ length: 20 }, () => 2 * MB)];

interface Case {
  readonly name: string;
  readonly sizes: readonly number[];
  readonly rounds: number;
  /** Whether weir has connections to the upstream from a pull just before. */
  readonly connected: boolean;
  /** What the median may be at most over a bucket. */
  readonly limit?: { readonly ratio: number; readonly firstByteMore?: number };
}

const CASES: readonly Case[] = [
  {
    name: '1 × 1 GiB',
    sizes: [GIB],
    rounds: 7,
    connected: false,
    limit: { ratio: 1.03, firstByteMore: 5 },
  },
  {
    name: '20 × 10 MB',
    sizes: Array.from({ length: 20 }, () => 10 * MB),
    rounds: 5,
    connected: false,
    limit: { ratio: 1.05 },
  },
  {
    name: '3 × 2 MB, weir connected',
    sizes: [2 * MB, 2 * MB, 2 * MB],
    rounds: 9,
    connected: true,
    limit: { ratio: 0.8 },
  },
  { name: '3 × 2 MB, weir not connected', sizes: [2 * MB, 2 * MB, 2 * MB], rounds: 5, connected: false },
];

interface Measured {
  readonly name: string;
  readonly directMs: Sample;
  readonly weirMs: Sample;
  /** Of pairs that followed one another. */
  readonly ratio: Sample;
  /** Milliseconds to the first byte of the first layer, weir less direct. */
  readonly firstByteMore: Sample;
  /** Of weir. */
  readonly cpuSecondsPerGiB: Sample;
  /** Of the S3 server, which uses the same processors. */
  readonly serverCpuSecondsPerGiB: Sample | undefined;
}

/** Pulls that nobody made before, from an upstream 30 ms and 125 MB/s away: by way of weir, and without. */
export async function benchCold(options: BenchOptions): Promise<Report> {
  await using scene = await Scene.open({ tokens: options.tokens });
  const { store } = options;
  const nodeFlags = options.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${options.profile}`];
  const weir = await scene.startWeir({ nodeFlags, ...(store === undefined ? {} : { store }) });
  for (const sizes of WARM_UP) {
    const image = await scene.upstream.push(sizes);
    await pull(scene.upstream.url, undefined, image, options);
    await pull(weir.url, HOST, image, options);
    await weir.settled();
  }
  const measured: Measured[] = [];
  const beyond: string[] = [];
  for (const one of CASES) {
    const found = await measure(scene, weir, one, options);
    measured.push(found);
    if (store !== undefined) beyond.push(...beyondLimit(one, found));
  }
  const peakMB = await peakMegabytes(weir.pid);
  await weir.stop();
  return {
    data: { measured, peakMB },
    title: 'Cold pulls, weir ÷ direct; median (least–most) of rounds in turn',
    columns: [
      'image',
      'direct ms',
      'weir ms',
      'weir ÷ direct',
      'first byte, ms more',
      'weir CPU s/GiB',
      'S3 CPU s/GiB',
    ],
    rows: measured.map((row) => [
      row.name,
      tell(row.directMs, 0),
      tell(row.weirMs, 0),
      tell(row.ratio, 3),
      tell(row.firstByteMore, 1),
      tell(row.cpuSecondsPerGiB, 2),
      row.serverCpuSecondsPerGiB === undefined ? '' : tell(row.serverCpuSecondsPerGiB, 2),
    ]),
    notes: [`Memory of weir at its peak: ${peakMB} MB`, ...beyond],
    ok: beyond.length === 0,
  };
}

/** What is beyond the limits of a case, in words. */
function beyondLimit({ name, limit }: Case, { ratio, firstByteMore }: Measured): string[] {
  if (limit === undefined) return [];
  const { ratio: most, firstByteMore: latest = Number.POSITIVE_INFINITY } = limit;
  return [
    ...(ratio.median > most ? [`TOO SLOW: ${name}: ${ratio.median.toFixed(3)} × direct, not ${most}`] : []),
    ...(firstByteMore.median > latest
      ? [`TOO LATE: ${name}: first byte ${firstByteMore.median.toFixed(1)} ms after direct, not ${latest}`]
      : []),
  ];
}

async function measure(scene: Scene, weir: WeirProcess, one: Case, options: BenchOptions): Promise<Measured> {
  const { upstream } = scene;
  const direct: Pulled[] = [];
  const through: Pulled[] = [];
  const cpu: number[] = [];
  const serverCpu: number[] = [];
  const { serverPid } = options;
  const size = one.sizes.reduce((sum, bytes) => sum + bytes, 0);
  for (let round = 0; round < one.rounds; round += 1) {
    const image = await upstream.push(one.sizes);
    direct.push(await pull(upstream.url, undefined, image, options));
    if (one.connected) {
      await pull(weir.url, HOST, await upstream.push(one.sizes), options);
      await weir.settled();
    } else await upstream.closeIdle();
    const before = await cpuSeconds(weir.pid);
    const serverBefore = serverPid === undefined ? 0 : await cpuSeconds(serverPid);
    through.push(await pull(weir.url, HOST, image, options));
    await weir.settled();
    cpu.push((((await cpuSeconds(weir.pid)) - before) * GIB) / size);
    if (serverPid !== undefined)
      serverCpu.push((((await cpuSeconds(serverPid)) - serverBefore) * GIB) / size);
  }
  const pairs = direct.map((one, index) => ({ one, other: through[index] ?? one }));
  return {
    name: one.name,
    directMs: sampleOf(direct.map(({ milliseconds }) => milliseconds)),
    weirMs: sampleOf(through.map(({ milliseconds }) => milliseconds)),
    ratio: sampleOf(pairs.map(({ one, other }) => other.milliseconds / one.milliseconds)),
    firstByteMore: sampleOf(pairs.map(({ one, other }) => firstByte(other) - firstByte(one))),
    cpuSecondsPerGiB: sampleOf(cpu),
    serverCpuSecondsPerGiB: serverPid === undefined ? undefined : sampleOf(serverCpu),
  };
}

function firstByte({ layers }: Pulled): number {
  return layers[0]?.firstByteMs ?? Number.NaN;
}

async function pull(
  origin: string,
  ns: string | undefined,
  image: Pushed,
  { verify }: BenchOptions,
): Promise<Pulled> {
  const client = new ContainerdClient({ origin, ns, verify });
  try {
    return await client.pull(image);
  } finally {
    client.close();
  }
}
