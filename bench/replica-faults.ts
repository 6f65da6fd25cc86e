import { bytesOver, Expectations, type FaultRow, tellRequests, tellStore } from './fault-row.ts';
import type { MinioProcess } from './minio-process.ts';
import { tellPull } from './s3-faults.ts';
import { S3Stage, SIZE } from './s3-stage.ts';

/** Two replicas over one bucket are asked for the same blob, which neither has. */
export async function runTwoReplicas(minio: MinioProcess): Promise<FaultRow> {
  await using stage = await S3Stage.open(minio);
  const { upstream } = stage.scene;
  const replicas = [await stage.startWeir(), await stage.startWeir()];
  const pulls = await Promise.all(replicas.map((replica) => stage.pull(replica)));
  for (const replica of replicas) await replica.settled();
  const store = await stage.inspect();
  const requests = await upstream.requests('GET', stage.layer.digest);
  await upstream.forget();
  const next = await Promise.all(replicas.map((replica) => stage.pull(replica)));
  const again = await upstream.requests('GET', stage.layer.digest);

  const expectations = new Expectations();
  for (const { layer } of pulls) expectations.that(layer.right === true, 'both clients get the blob');
  expectations.nothingWrong(
    [...pulls, ...next].map(({ layer }) => layer),
    store,
  );
  expectations.that(store.whole >= 1 && store.leftOver === 0, 'the store holds it, and no upload');
  expectations.that(again.length === 0, 'both have it from the store');
  for (const { layer } of next) expectations.recovered(layer);
  return {
    fault: 'S3, two replicas at once',
    client: `${pulls.map(tellPull).join(' and ')}; ${tellRequests(requests, SIZE)}`,
    store: tellStore(store),
    next: `${next.map(tellPull).join(' and ')}; ${again.length} upstream`,
    wrong: expectations.wrong,
  };
}

/** The same, and one of them is killed when it has half of it. */
export async function runReplicaKilled(minio: MinioProcess): Promise<FaultRow> {
  await using stage = await S3Stage.open(minio);
  const { upstream } = stage.scene;
  const killed = await stage.startWeir();
  const other = await stage.startWeir();
  // The first body, which is the killed one's, is kept from its end.
  await upstream.setFault({ kind: 'stall', at: 0.5, times: 1 });
  const first = stage.pull(killed);
  while (bytesOver(await upstream.requests('GET', stage.layer.digest), SIZE) < 0.5);
  const second = stage.pull(other);
  await killed.stop('SIGKILL');
  const pulls = await Promise.all([first, second]);
  await other.settled();
  const requests = await upstream.requests('GET', stage.layer.digest);
  return await afterKill(stage, 'S3, one of two replicas killed at 50 %', {
    client: `${pulls.map(tellPull).join(' and ')}; ${tellRequests(requests, SIZE)}`,
    wrong: [
      ...(pulls[0].layer.whole ? ['the client of the killed one does not take it for whole'] : []),
      ...(pulls[1].layer.right === true ? [] : ['the other client gets the blob']),
    ],
  });
}

/** Killed while it uploads; the other replica has to store it then. */
export async function runKilledUploading(minio: MinioProcess): Promise<FaultRow> {
  await using stage = await S3Stage.open(minio);
  const killed = await stage.startWeir();
  const { promise: uploading, resolve } = Promise.withResolvers<void>();
  let parts = 0;
  stage.s3.setFault((operation) => {
    if (operation !== 'part' || ++parts <= 2) return undefined;
    resolve();
    return { kind: 'silence' };
  });
  const pull = await stage.pull(killed);
  await uploading;
  await killed.stop('SIGKILL');
  stage.s3.setFault(undefined);
  return await afterKill(stage, 'S3, killed amid the upload', {
    client: tellPull(pull),
    wrong: pull.layer.right === true ? [] : ['the client gets the blob'],
  });
}

/** A third replica pulls. */
async function afterKill(
  stage: S3Stage,
  fault: string,
  { client, wrong }: { readonly client: string; readonly wrong: readonly string[] },
): Promise<FaultRow> {
  const { upstream } = stage.scene;
  const before = await stage.inspect();
  const replica = await stage.startWeir();
  await upstream.forget();
  const next = await stage.pull(replica);
  await replica.settled();
  const again = await upstream.requests('GET', stage.layer.digest);
  const after = await stage.inspect();
  const expectations = new Expectations();
  expectations.nothingWrong([next.layer], before);
  expectations.nothingWrong([next.layer], after);
  expectations.that(after.whole >= 1, 'the store has it then');
  expectations.recovered(next.layer);
  return {
    fault,
    client,
    store: `${tellStore(before)}; then ${tellStore(after)}`,
    next: `${tellPull(next)}; ${again.length} upstream`,
    wrong: [...wrong, ...expectations.wrong],
  };
}
