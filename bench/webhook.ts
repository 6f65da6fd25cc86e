import { setTimeout } from 'node:timers/promises';
import type { V1Pod } from '@kubernetes/client-node';
import { freePort } from '../test/containerd/port.ts';
import { DOOR, eventually, imageOf, Stage } from '../test/webhook/cluster/stage.ts';
import type { Report } from './report.ts';

const IMAGE = 'app:1';
const REWRITTEN = `${DOOR}/docker.io/library/${IMAGE}`;
const RATES = [100, 200] as const;
const PODS = 600;
/** Before anything is measured. */
const WARM_UP = 200;

interface Case {
  readonly name: string;
  readonly node: string;
  /** The image that the kubelet is to see. */
  readonly image: string;
}

const CASES: readonly Case[] = [
  { name: 'a node that is configured', node: 'configured', image: IMAGE },
  { name: 'a node that is not: the Pod is patched', node: 'fallback', image: REWRITTEN },
];

interface Measured {
  readonly name: string;
  readonly rate: number;
  /** Milliseconds from asking the API server to bind a Pod to its answer. */
  readonly p50: number;
  readonly p99: number;
  /** Milliseconds within which the webhook itself had answered 99 of 100. */
  readonly webhookP99: number | undefined;
  /** And within which the API server had answered 99 of 100 of its patches, for which it waits. */
  readonly patchP99: number | undefined;
  /** Of all Pods, those that the kubelet would pull as they are to be. */
  readonly right: number;
  readonly pods: number;
}

/** How much longer it takes to bind a Pod, by a real API server with the real webhook, beside one without. */
export async function benchWebhook(): Promise<Report> {
  const stage = await Stage.open();
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => stage.close());
  await stage.makeNode('configured', { 'docker.io': 'configured' });
  await stage.makeNode('other', { 'docker.io': 'configured' });
  const measured: Measured[] = [];
  await bindAll(stage, 'other', WARM_UP, RATES[0]);
  for (const rate of RATES)
    measured.push(
      await measure(stage, { name: 'without the webhook', node: 'other', image: IMAGE }, rate, undefined),
    );
  await stage.makeNode('fallback', { 'docker.io': 'unsupported' });
  const status = `127.0.0.1:${await freePort()}`;
  await stage.startWebhook({ status });
  await eventually('Pods are rewritten', async () => (await stage.imageOn('fallback', IMAGE)) === REWRITTEN);
  for (const one of CASES) await bindAll(stage, one.node, WARM_UP, RATES[0]);
  for (const one of CASES) for (const rate of RATES) measured.push(await measure(stage, one, rate, status));
  return {
    data: { measured },
    title: 'Binding Pods: from the question to the answer of the API server',
    columns: [
      'to',
      'Pods a second',
      'p50 ms',
      'p99 ms',
      'webhook p99 ms',
      'its patch p99 ms',
      'as they are to be',
    ],
    rows: measured.map(({ name, rate, p50, p99, webhookP99, patchP99, right, pods }) => [
      name,
      String(rate),
      p50.toFixed(1),
      p99.toFixed(1),
      tellBound(webhookP99),
      tellBound(patchP99),
      `${right} of ${pods}`,
    ]),
    notes: ['The client, etcd, the API server and the webhook share the processors. No Pod is ever refused.'],
    ok: measured.every(({ right, pods }) => right === pods),
  };
}

async function measure(
  stage: Stage,
  { name, node, image }: Case,
  rate: number,
  status: string | undefined,
): Promise<Measured> {
  const before = await answersOf(status);
  const bound = await bindAll(stage, node, PODS, rate);
  const after = await answersOf(status);
  const webhookP99 = p99Of(before.bindings, after.bindings);
  const patchP99 = p99Of(before.patches, after.patches);
  const times = bound.map(({ ms }) => ms).toSorted((one, other) => one - other);
  const at = (share: number): number => times[Math.ceil(times.length * share) - 1] ?? Number.NaN;
  const right = bound.filter(({ pod }) => imageOf(pod) === image).length;
  return { name, rate, p50: at(0.5), p99: at(0.99), webhookP99, patchP99, right, pods: PODS };
}

/** How many within so many milliseconds, since the webhook started. */
type Counts = ReadonlyMap<number, number>;

async function answersOf(status: string | undefined): Promise<{ bindings: Counts; patches: Counts }> {
  if (status === undefined) return { bindings: new Map(), patches: new Map() };
  const text = await (await fetch(`http://${status}/metrics`)).text();
  return {
    bindings: countsIn(text, /^weir_webhook_seconds_bucket\{le="([^"]+)",at="bind"\} (\d+)$/gm),
    patches: countsIn(text, /^weir_webhook_patch_seconds_bucket\{le="([^"]+)"\} (\d+)$/gm),
  };
}

function countsIn(text: string, buckets: RegExp): Counts {
  return new Map(
    [...text.matchAll(buckets)].map(([, seconds, count]) => [
      seconds === '+Inf' ? Number.POSITIVE_INFINITY : Number(seconds) * 1_000,
      Number(count),
    ]),
  );
}

/** The least bound that holds for 99 of 100 answers between. */
function p99Of(before: ReadonlyMap<number, number>, after: ReadonlyMap<number, number>): number | undefined {
  const between = [...after].map(([bound, count]) => ({ bound, count: count - (before.get(bound) ?? 0) }));
  const all = between.at(-1)?.count ?? 0;
  return all === 0 ? undefined : between.find(({ count }) => count >= 0.99 * all)?.bound;
}

function tellBound(bound: number | undefined): string {
  return bound === undefined ? '' : `≤ ${bound}`;
}

/** Makes Pods first, and binds them at this rate, whether those before are bound or not. */
async function bindAll(
  stage: Stage,
  node: string,
  count: number,
  rate: number,
): Promise<readonly { readonly ms: number; readonly pod: V1Pod }[]> {
  const pods: V1Pod[] = [];
  for (let made = 0; made < count; made++) pods.push(await stage.makePod(IMAGE));
  const begin = performance.now();
  const bound = pods.map(async (pod, index) => {
    await setTimeout(Math.max(0, begin + (index * 1_000) / rate - performance.now()));
    const asked = performance.now();
    await stage.bindOnly(pod, node);
    return { ms: performance.now() - asked, pod };
  });
  const times = await Promise.all(bound);
  return Promise.all(times.map(async ({ ms, pod }) => ({ ms, pod: await stage.read(pod) })));
}
