import { bytesOver, Expectations, type FaultRow, tellBlob, tellRequests, tellStore } from './fault-row.ts';
import type { ChooseFault, Operation } from './faulty-s3.ts';
import type { MinioProcess } from './minio-process.ts';
import { type NodePull, S3Stage, SIZE } from './s3-stage.ts';

/** Slow enough for a fault to come amid a fill. */
const SLOW_LINK = { roundTripMs: 30, bytesPerSecond: 25_000_000 };
/** A pull may wait so long for a store that fails. */
const MAX_WAIT_MS = 5_000;
const UNKNOWN_KEY = { kind: 'status', status: 403, code: 'InvalidAccessKeyId' } as const;
const ILL = { kind: 'status', status: 500, code: 'InternalError' } as const;
const SILENCE = { kind: 'silence' } as const;

interface S3Fault {
  readonly name: string;
  /** - `start`: before weir is started; `before`: before anybody pulls; `amid`: in the middle of the first pull;
   *  - `after`: when the blob is in the bucket;
   *  - `after, restarted`: the same, and weir knows nothing of it in memory. */
  readonly when: 'start' | 'before' | 'amid' | 'after' | 'after, restarted';
  readonly begin: (stage: S3Stage) => Promise<void> | void;
  /** An upload that could not be aborted is left to the sweep. */
  readonly leavesUpload?: true;
}

const breaking =
  (choose: ChooseFault): S3Fault['begin'] =>
  ({ s3 }) =>
    s3.setFault(choose);
const only =
  (...operations: readonly Operation[]): ((operation: Operation) => typeof SILENCE | undefined) =>
  (operation) =>
    operations.includes(operation) ? SILENCE : undefined;

export const S3_FAULTS: readonly S3Fault[] = [
  { name: 'refuses at the start of weir', when: 'start', begin: ({ s3 }) => s3.refuse() },
  { name: 'refuses before a fill', when: 'before', begin: ({ s3 }) => s3.refuse() },
  { name: 'refuses at 50 % of a fill', when: 'amid', begin: ({ s3 }) => s3.refuse() },
  {
    name: 'refuses amid the upload',
    when: 'before',
    begin: ({ s3 }) => {
      s3.setFault((operation) => {
        if (operation !== 'part') return undefined;
        void s3.refuse();
        return SILENCE;
      });
    },
    leavesUpload: true,
  },
  { name: 'refuses after a fill', when: 'after', begin: ({ s3 }) => s3.refuse() },
  { name: 'refuses after a fill, weir restarted', when: 'after, restarted', begin: ({ s3 }) => s3.refuse() },
  { name: 'never answers reads, nothing stored', when: 'before', begin: breaking(only('read')) },
  { name: 'never answers reads, stored', when: 'after', begin: breaking(only('read')) },
  {
    name: 'never answers reads, stored, weir restarted',
    when: 'after, restarted',
    begin: breaking(only('read')),
  },
  {
    name: 'stalls at 50 % of a read',
    when: 'after',
    begin: breaking((operation) => (operation === 'read' ? { kind: 'stall', after: SIZE / 2 } : undefined)),
  },
  {
    name: 'a part fails once',
    when: 'before',
    begin: ({ s3 }) => {
      let parts = 0;
      s3.setFault((operation) => (operation === 'part' && ++parts === 2 ? ILL : undefined));
    },
  },
  {
    name: 'parts fail always',
    when: 'before',
    begin: breaking((operation) => (operation === 'part' ? ILL : undefined)),
  },
  {
    name: 'loses a part that it has acknowledged, once',
    when: 'before',
    begin: ({ s3 }) => {
      let parts = 0;
      s3.setFault((operation) => (operation === 'part' && ++parts === 2 ? { kind: 'loss' } : undefined));
    },
  },
  {
    name: 'the object vanishes',
    when: 'after',
    begin: ({ minio, prefix, layer }) => minio.remove(prefix, layer.digest),
  },
  {
    name: 'the object vanishes, weir restarted',
    when: 'after, restarted',
    begin: ({ minio, prefix, layer }) => minio.remove(prefix, layer.digest),
  },
  {
    name: 'the object is truncated',
    when: 'after',
    begin: ({ minio, prefix, layer }) => minio.overwrite(prefix, layer.digest, Buffer.alloc(SIZE / 2)),
  },
  {
    name: 'the object is truncated, weir restarted',
    when: 'after, restarted',
    begin: ({ minio, prefix, layer }) => minio.overwrite(prefix, layer.digest, Buffer.alloc(SIZE / 2)),
  },
  { name: 'wrong credentials (403), nothing stored', when: 'before', begin: breaking(() => UNKNOWN_KEY) },
  { name: 'wrong credentials (403), stored', when: 'after', begin: breaking(() => UNKNOWN_KEY) },
];

/** Those that are a matter of waiting, and are run beside the others. */
export const SLOW_S3_FAULTS: readonly S3Fault[] = [
  { name: 'never answers writes', when: 'before', begin: breaking(only('write', 'part')) },
  { name: 'never answers parts', when: 'before', begin: breaking(only('part')), leavesUpload: true },
  { name: 'never answers anything', when: 'before', begin: breaking(() => SILENCE) },
];

/** Two pulls while the fault is in force, and one when it is over. */
export async function runS3Fault(minio: MinioProcess, fault: S3Fault): Promise<FaultRow> {
  await using stage = await S3Stage.open(minio);
  const { scene, s3 } = stage;
  const { upstream } = scene;
  if (fault.when === 'start') await fault.begin(stage);
  let weir = await stage.startWeir();
  if (fault.when.startsWith('after')) {
    await stage.pull(weir);
    await weir.settled();
    await upstream.forget();
  }
  if (fault.when === 'after, restarted') {
    await weir.stop();
    weir = await stage.startWeir();
  }
  if (fault.when === 'amid') await upstream.setLink(SLOW_LINK);
  else if (fault.when !== 'start') await fault.begin(stage);
  const pulling = stage.pull(weir);
  if (fault.when === 'amid') {
    while (bytesOver(await upstream.requests('GET', stage.layer.digest), SIZE) < 0.5);
    await fault.begin(stage);
  }
  const first = await pulling;
  const second = await stage.pull(weir);
  const meanwhile = await upstream.requests('GET', stage.layer.digest);

  s3.setFault(undefined);
  await s3.resume();
  const ended = performance.now();
  await weir.settled();
  const healedMs = performance.now() - ended;
  const store = await stage.inspect();
  await upstream.forget();
  const next = await stage.pull(weir);
  const again = await upstream.requests('GET', stage.layer.digest);

  const expectations = new Expectations();
  for (const pull of [first, second]) {
    expectations.that(pull.manifestStatus === 200, 'the manifest is served');
    expectations.that(pull.layer.right === true, 'the client gets the blob');
    expectations.that(waited(pull) <= MAX_WAIT_MS, `nobody waits longer than ${MAX_WAIT_MS / 1000} s`);
  }
  expectations.nothingWrong([first.layer, second.layer, next.layer], store);
  expectations.that(store.whole >= 1, 'the store has it when the fault is over');
  expectations.that(fault.leavesUpload === true || store.leftOver === 0, 'no upload is left over');
  expectations.recovered(next.layer);
  expectations.that(again.length === 0, 'the next pull is served from the store');
  return {
    fault: `S3 ${fault.name}`,
    client: `${tellPull(first)}; then ${tellPull(second)}; ${tellRequests(meanwhile, SIZE)}`,
    store: `${tellStore(store)}, ${(healedMs / 1000).toFixed(1)} s after`,
    next: `${tellPull(next)}; ${again.length} upstream`,
    wrong: expectations.wrong,
  };
}

/** Without what the bytes take. */
function waited({ manifestMs, layer }: NodePull): number {
  return manifestMs + layer.firstByteMs;
}

export function tellPull({ manifestStatus, manifestMs, layer }: NodePull): string {
  return `manifest ${manifestStatus}, ${Math.round(manifestMs)} ms, layer ${tellBlob(layer, SIZE)}`;
}
