import { setTimeout } from 'node:timers/promises';
import { type Blob, ContainerdClient } from './containerd-client.ts';
import {
  bytesOver,
  Expectations,
  type FaultRow,
  inspectStore,
  tellBlob,
  tellRequests,
  tellStore,
} from './fault-row.ts';
import { Scene } from './scene.ts';
import type { Fault, SeenRequest } from './upstream-control.ts';
import { HOST } from './weir-process.ts';

const SIZE = 50_000_000;
/** How much of a blob may come twice when a broken body is resumed: what was on its way. */
const RESUME_SLACK = 0.1;
const LOOK_AGAIN_MS = 100;
/** Longer than weir remembers that an upstream does not have something. */
const ABSENT_MS = 7_000;

interface Outcome {
  readonly blob: Blob;
  /** For the blob, while the fault was in force. */
  readonly requests: readonly SeenRequest[];
}

interface UpstreamFault {
  readonly name: string;
  readonly fault: Fault;
  readonly expect: (outcome: Outcome, expectations: Expectations) => void;
}

const whole = ({ blob }: Outcome, expectations: Expectations): void =>
  expectations.that(blob.right === true, 'the client gets the blob');
const notWhole = ({ blob }: Outcome, expectations: Expectations): void => {
  expectations.that(!blob.whole, 'the client does not take it for whole');
  expectations.that(blob.status !== 404, 'no 404 for what exists');
};
const resumed = (outcome: Outcome, expectations: Expectations): void => {
  whole(outcome, expectations);
  const [, ...later] = outcome.requests;
  expectations.that(later.length > 0 && later.every(({ range }) => range !== undefined), 'resumed by Range');
  expectations.that(bytesOver(outcome.requests, SIZE) <= 1 + RESUME_SLACK, 'nothing is fetched again');
};
const status =
  (wanted: number) =>
  ({ blob }: Outcome, expectations: Expectations): void =>
    expectations.that(blob.status === wanted, `the answer is ${wanted}`);

export const UPSTREAM_FAULTS: readonly UpstreamFault[] = [
  { name: 'upstream dies at 25 %, once', fault: { kind: 'break', at: 0.25, times: 1 }, expect: resumed },
  { name: 'upstream dies every 10 %', fault: { kind: 'break-every', step: 0.1 }, expect: resumed },
  { name: 'upstream dies at 25 %, always', fault: { kind: 'break', at: 0.25, times: 1e9 }, expect: notWhole },
  { name: 'upstream corrupts a byte', fault: { kind: 'corrupt', at: 0.5 }, expect: notWhole },
  ...[401, 403, 404].map((code) => ({
    name: `upstream answers ${code}`,
    fault: { kind: 'status', status: code } as const,
    expect: status(404),
  })),
  ...[429, 500].map((code) => ({
    name: `upstream answers ${code}`,
    fault: { kind: 'status', status: code } as const,
    expect: status(503),
  })),
];

/** Those that are a matter of waiting, and are run beside the others. */
export const SLOW_UPSTREAM_FAULTS: readonly UpstreamFault[] = [
  { name: 'upstream stalls at 25 %, once', fault: { kind: 'stall', at: 0.25, times: 1 }, expect: resumed },
  {
    name: 'upstream stalls at 25 %, always',
    fault: { kind: 'stall', at: 0.25, times: 1e9 },
    expect: notWhole,
  },
  { name: 'upstream never answers', fault: { kind: 'silence' }, expect: status(503) },
];

/** A pull while the fault is in force, and one when it is over. */
export async function runUpstreamFault({ name, fault, expect }: UpstreamFault): Promise<FaultRow> {
  return await runFault(name, expect, {
    begin: (scene) => scene.upstream.setFault(fault),
    end: (scene) => scene.upstream.setFault({ kind: 'none' }),
  });
}

/** The upstream's port is closed. */
export async function runRefused(): Promise<FaultRow> {
  return await runFault('connection refused', status(503), {
    begin: (scene) => scene.upstream.refuse(),
    end: (scene) => scene.upstream.resume(),
  });
}

/** The upstream's name leads nowhere, until an edit of the configuration. */
export async function runUnknownName(): Promise<FaultRow> {
  await using scene = await Scene.open();
  const weir = await scene.startWeir({ upstreamUrl: 'http://upstream.invalid:5000' });
  const { repository, layers } = await scene.upstream.push([SIZE]);
  const client = new ContainerdClient({ origin: weir.url, ns: HOST, verify: true });
  const [layer] = layers;
  if (layer === undefined) throw new Error('the image has no layer');
  const blob = await client.blob(repository, layer);
  await weir.settled();
  const store = await inspectStore(scene.storeDirectory);
  await weir.redirect(scene.upstream.url);
  const edited = performance.now();
  let next = await client.blob(repository, layer);
  while (next.status === 503 && performance.now() - edited < 5_000) {
    await setTimeout(LOOK_AGAIN_MS);
    next = await client.blob(repository, layer);
  }
  const expectations = new Expectations();
  status(503)({ blob, requests: [] }, expectations);
  expectations.nothingWrong([blob, next], store);
  expectations.recovered(next);
  return {
    fault: 'DNS fails',
    client: tellBlob(blob, SIZE),
    store: tellStore(store),
    next: `after an edit of the configuration: ${tellBlob(next, SIZE)}`,
    wrong: expectations.wrong,
  };
}

async function runFault(
  name: string,
  expect: UpstreamFault['expect'],
  { begin, end }: Record<'begin' | 'end', (scene: Scene) => Promise<void>>,
): Promise<FaultRow> {
  await using scene = await Scene.open();
  const { upstream } = scene;
  const weir = await scene.startWeir();
  const { repository, layers } = await upstream.push([SIZE]);
  const [layer] = layers;
  if (layer === undefined) throw new Error('the image has no layer');
  const client = new ContainerdClient({ origin: weir.url, ns: HOST, verify: true });

  await begin(scene);
  const blob = await client.blob(repository, layer);
  await weir.settled();
  const requests = await upstream.requests('GET', layer.digest);
  const store = await inspectStore(scene.storeDirectory);
  await end(scene);
  await upstream.forget();
  const ended = performance.now();
  let next = await client.blob(repository, layer);
  // What an upstream did not have is not asked for again at once.
  while (next.status === 404 && performance.now() - ended < ABSENT_MS) {
    await setTimeout(LOOK_AGAIN_MS);
    next = await client.blob(repository, layer);
  }
  const seconds = (performance.now() - ended - next.milliseconds) / 1000;
  client.close();

  const expectations = new Expectations();
  expect({ blob, requests }, expectations);
  expectations.nothingWrong([blob, next], store);
  expectations.that(store.leftOver === 0, 'nothing is left over');
  expectations.that(store.whole > 0 === blob.whole, 'the store has it exactly when the client has');
  expectations.recovered(next);
  const again = await upstream.requests('GET', layer.digest);
  return {
    fault: name,
    client: `${tellBlob(blob, SIZE)}; ${tellRequests(requests, SIZE)}`,
    store: tellStore(store),
    next: `${seconds > 1 ? `after ${seconds.toFixed(1)} s: ` : ''}${tellBlob(next, SIZE)}; ${again.length} upstream`,
    wrong: expectations.wrong,
  };
}
