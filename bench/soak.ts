import { setTimeout } from 'node:timers/promises';
import { cpuSeconds, forgetPeak, peakMegabytes, residentMegabytes } from './child.ts';
import { ContainerdClient, isRight } from './containerd-client.ts';
import type { BenchOptions, Report } from './report.ts';
import { Scene } from './scene.ts';
import type { Pushed } from './upstream-control.ts';
import { HOST, type WeirProcess } from './weir-process.ts';

const MB = 1_000_000;
/** As fast as the two of them can. */
const NEAR = { roundTripMs: 1, bytesPerSecond: 400_000_000 };
const LARGE = 200 * MB;
const CROWD = 50;
const MANY = 250;
const MEDIUM = 5 * MB;
const SLOW_BYTES_PER_SECOND = 20 * MB;
const SLOW_HITS = 100;
const SMALL_PULLS = 300;
const SMALL_AT_ONCE = 16;
const ABORTED_PULLS = 2_000;
const ABORTED_AT_ONCE = 50;
const ABORTED_BLOBS = 40;
const IDLE_MS = 20_000;
/** The chart's limit; what is measured has to be well below. */
const LIMIT_MB = 1024;

/** What weir took while one kind of load ran. */
interface Phase {
  readonly name: string;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Resident, in the phase and at its end. */
  readonly peakMB: number;
  readonly endMB: number;
  /** Of JavaScript's objects, and of memory that they hold outside of their heap, at the end. */
  readonly heapMB: number;
  readonly externalMB: number;
}

interface Soak {
  readonly scene: Scene;
  readonly weir: WeirProcess;
  /** Pulls that weir answered with 503, as it does when the machine is too busy to connect to the upstream in time. */
  refused: number;
}

const PHASES: readonly (readonly [string, (soak: Soak) => Promise<void>])[] = [
  ['just started', async () => undefined],
  [`${SMALL_PULLS} new layers of 1–20 MB, ${SMALL_AT_ONCE} at once`, pullSmall],
  [`${MANY} new layers of 5 MB at once`, pullMany],
  [`${CROWD} new layers of 200 MB at once; some clients slow, some leave`, pullLarge],
  [`${ABORTED_PULLS} pulls of 1–200 MB that clients leave, ${ABORTED_AT_ONCE} at once`, abort],
  [`${CROWD} new layers of 200 MB at once, again`, pullLarge],
  [`${SLOW_HITS} slow clients of one stored layer`, pullSlowly],
  [`${IDLE_MS / 1000} s of nothing`, () => setTimeout(IDLE_MS)],
];

/** How much memory weir takes, with an upstream that speaks TLS. The same pulls in the same order in every run. */
export async function benchSoak(options: BenchOptions): Promise<Report> {
  await using scene = await Scene.open({ tokens: options.tokens, tls: true });
  const { store, profile } = options;
  const nodeFlags = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const weir = await scene.startWeir({ nodeFlags, ...(store === undefined ? {} : { store }) });
  await scene.upstream.setLink(NEAR);
  const phases: Phase[] = [];
  const soak: Soak = { scene, weir, refused: 0 };
  for (const [name, work] of PHASES) phases.push(await measure(soak, name, work));
  await weir.stop();
  return {
    data: { phases, refused: soak.refused },
    title: 'Memory of weir, MB',
    columns: ['phase', 'resident, peak', 'resident, after', 'JS heap', 'JS external', 'CPU s', 's'],
    rows: phases.map((phase) => [
      phase.name,
      ...[phase.peakMB, phase.endMB, phase.heapMB, phase.externalMB].map(String),
      phase.cpuSeconds.toFixed(1),
      phase.seconds.toFixed(1),
    ]),
    notes: [
      `The chart gives it ${LIMIT_MB} MB. Without such a limit on its cgroup, as here, V8 takes some 100 MB more for young objects.`,
      `Refused: ${soak.refused}`,
    ],
    ok: phases.every(({ peakMB }) => peakMB < LIMIT_MB),
  };
}

async function measure(soak: Soak, name: string, work: (soak: Soak) => Promise<void>): Promise<Phase> {
  const { weir } = soak;
  await forgetPeak(weir.pid);
  const before = await cpuSeconds(weir.pid);
  const began = performance.now();
  await work(soak);
  await weir.settled();
  return {
    name,
    seconds: (performance.now() - began) / 1000,
    cpuSeconds: (await cpuSeconds(weir.pid)) - before,
    peakMB: await peakMegabytes(weir.pid),
    endMB: await residentMegabytes(weir.pid),
    heapMB: Math.round((await weir.metric('nodejs_heap_size_used_bytes')) / MB),
    externalMB: Math.round((await weir.metric('nodejs_external_memory_bytes')) / MB),
  };
}

async function pullSmall(soak: Soak): Promise<void> {
  const sizes = Array.from({ length: SMALL_PULLS }, (_, index) => (1 + (index % 20)) * MB);
  const image = await soak.scene.upstream.push(sizes);
  await atOnce(SMALL_AT_ONCE, SMALL_PULLS, (index) => pullLayer(soak, image, index));
}

/** As many connections to the upstream, which stay open for a while. */
async function pullMany(soak: Soak): Promise<void> {
  const image = await soak.scene.upstream.push(Array.from({ length: MANY }, () => MEDIUM));
  await atOnce(MANY, MANY, (index) => pullLayer(soak, image, index));
}

/** Of five clients one is slow, one slow and leaves, one leaves, two read to the end. */
async function pullLarge(soak: Soak): Promise<void> {
  const image = await soak.scene.upstream.push(Array.from({ length: CROWD }, () => LARGE));
  await atOnce(CROWD, CROWD, (index) => {
    const leaves = index % 5 === 1 || index % 5 === 2;
    const isSlow = index % 5 === 0 || index % 5 === 1;
    return pullLayer(soak, image, index, {
      ...(leaves ? { leaveAt: LARGE * ((index + 1) / (CROWD + 1)) } : {}),
      ...(isSlow ? { bytesPerSecond: SLOW_BYTES_PER_SECOND } : {}),
    });
  });
}

async function abort(soak: Soak): Promise<void> {
  const sizes = Array.from({ length: ABORTED_BLOBS }, (_, index) =>
    Math.round(MB * 200 ** (index / (ABORTED_BLOBS - 1))),
  );
  const image = await soak.scene.upstream.push(sizes);
  await atOnce(ABORTED_AT_ONCE, ABORTED_PULLS, (index) => {
    // From at once to nearly all of it.
    const leaveAt = (sizes[index % ABORTED_BLOBS] ?? 0) * ((index % 97) / 100) ** 2;
    return pullLayer(soak, image, index % ABORTED_BLOBS, { leaveAt });
  });
}

async function pullSlowly(soak: Soak): Promise<void> {
  const image = await soak.scene.upstream.push([LARGE]);
  await pullLayer(soak, image, 0);
  await soak.weir.settled();
  await atOnce(SLOW_HITS, SLOW_HITS, () =>
    pullLayer(soak, image, 0, { bytesPerSecond: SLOW_BYTES_PER_SECOND }),
  );
}

/** @throws Error when the layer is served wrongly, to a client that stays; a refusal sends it to the upstream. */
async function pullLayer(
  soak: Soak,
  { repository, layers }: Pushed,
  index: number,
  { leaveAt, bytesPerSecond }: { leaveAt?: number; bytesPerSecond?: number } = {},
): Promise<void> {
  const layer = layers[index];
  if (layer === undefined) throw new Error(`the image has no layer ${index}`);
  const client = new ContainerdClient({ origin: soak.weir.url, ns: HOST, bytesPerSecond });
  try {
    const blob = await client.blob(repository, layer, leaveAt);
    if (blob.status === 503) soak.refused += 1;
    else if (leaveAt === undefined && !isRight(blob))
      throw new Error(`a layer was answered ${blob.status}, ${blob.bytes} of ${layer.size} bytes`);
  } finally {
    client.close();
  }
}

async function atOnce(workers: number, count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) await work(index);
  };
  await Promise.all(Array.from({ length: workers }, run));
}
