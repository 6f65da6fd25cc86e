import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { Expectations, type FaultRow, tellStore } from './fault-row.ts';
import type { MinioProcess } from './minio-process.ts';
import { tellPull } from './s3-faults.ts';
import { S3Stage, SIZE } from './s3-stage.ts';

const MAIN = join(import.meta.dirname, '..', 'cli', 'main.ts');

/** Somebody puts other bytes of the same size under a blob's key. */
export async function runOverwritten(minio: MinioProcess): Promise<FaultRow> {
  await using stage = await S3Stage.open(minio);
  const { scene, prefix, layer } = stage;
  const weir = await stage.startWeir();
  await stage.pull(weir);
  await weir.settled();
  await minio.overwrite(prefix, layer.digest, Buffer.alloc(SIZE));
  await scene.upstream.forget();
  const pull = await stage.pull(weir);
  await weir.settled();
  const again = await scene.upstream.requests('GET', layer.digest);
  const scrub = await runScrub(minio.location(prefix));
  const next = await stage.pull(weir);
  await weir.settled();
  const store = await stage.inspect();
  const expectations = new Expectations();
  expectations.that(store.damaged === 0, 'the store holds nothing wrong');
  expectations.that(store.whole >= 1, 'the store has it again');
  expectations.that(again.length === 1, 'it was asked for once more');
  expectations.recovered(pull.layer);
  expectations.recovered(next.layer);
  return {
    fault: 'S3, the object is overwritten with as many bytes',
    client: `${tellPull(pull)}; ${again.length} upstream; scrub ends with ${scrub}`,
    store: tellStore(store),
    next: tellPull(next),
    wrong: expectations.wrong,
  };
}

async function runScrub(store: string): Promise<number | null> {
  const child = spawn(process.execPath, [MAIN, 'registry', 'scrub', '--store', store], { stdio: 'ignore' });
  await once(child, 'close');
  return child.exitCode;
}
