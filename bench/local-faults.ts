import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { ContainerdClient } from './containerd-client.ts';
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
import type { Descriptor, Pushed } from './upstream-control.ts';
import { HOST, type WeirProcess } from './weir-process.ts';

const SIZE = 50_000_000;
const SMALL_DISK = '24m';
const LARGER_DISK = '400m';

export async function runClientLeaves(): Promise<FaultRow> {
  await using scene = await Scene.open();
  const weir = await scene.startWeir();
  const { repository, layer } = await pushOne(scene);
  const blob = await clientOf(weir).blob(repository, layer, SIZE / 10);
  await weir.settled();
  const store = await inspectStore(scene.storeDirectory);
  const next = await clientOf(weir).blob(repository, layer);
  const requests = await scene.upstream.requests('GET', layer.digest);
  const expectations = new Expectations();
  expectations.that(store.whole === 1, 'the blob is fetched to its end');
  expectations.that(requests.length === 1, 'one request upstream');
  expectations.nothingWrong([blob, next], store);
  expectations.recovered(next);
  return {
    fault: 'client leaves at 10 %',
    client: `left; ${tellRequests(requests, SIZE)}`,
    store: tellStore(store),
    next: `${tellBlob(next, SIZE)}; ${requests.length - 1} upstream`,
    wrong: expectations.wrong,
  };
}

export async function runKilled(): Promise<FaultRow> {
  await using scene = await Scene.open();
  const { upstream } = scene;
  const weir = await scene.startWeir();
  const { repository, layer } = await pushOne(scene);
  // Kept from reaching its end, so that the process is killed in the middle.
  await upstream.setFault({ kind: 'stall', at: 0.5, times: 1 });
  const pulling = clientOf(weir).blob(repository, layer);
  while (bytesOver(await upstream.requests('GET', layer.digest), SIZE) < 0.5);
  await weir.stop('SIGKILL');
  const blob = await pulling;
  await upstream.forget();
  const restarted = await scene.startWeir();
  const store = await inspectStore(scene.storeDirectory);
  const next = await clientOf(restarted).blob(repository, layer);
  const requests = await upstream.requests('GET', layer.digest);
  const expectations = new Expectations();
  expectations.that(!blob.whole, 'the client does not take it for whole');
  expectations.that(store.whole === 0, 'the store shows nothing that is not complete');
  expectations.nothingWrong([blob, next], store);
  expectations.recovered(next);
  return {
    fault: 'SIGKILL at 50 %, restarted',
    client: tellBlob(blob, SIZE),
    store: tellStore(store),
    next: `${tellBlob(next, SIZE)}; ${tellRequests(requests, SIZE)}`,
    wrong: expectations.wrong,
  };
}

export async function runTwoProcesses(): Promise<FaultRow> {
  await using scene = await Scene.open();
  const weirs = [await scene.startWeir(), await scene.startWeir()];
  const { repository, layer } = await pushOne(scene);
  const read = (): Promise<Awaited<ReturnType<ContainerdClient['blob']>>[]> =>
    Promise.all(weirs.map((weir) => clientOf(weir).blob(repository, layer)));
  const blobs = await read();
  for (const weir of weirs) await weir.settled();
  const store = await inspectStore(scene.storeDirectory);
  const requests = await scene.upstream.requests('GET', layer.digest);
  await scene.upstream.forget();
  const next = await read();
  const again = await scene.upstream.requests('GET', layer.digest);
  const expectations = new Expectations();
  expectations.that(
    blobs.every(({ right }) => right === true),
    'both clients get the blob',
  );
  expectations.that(store.whole === 1 && store.leftOver === 0, 'the store holds it once');
  expectations.that(again.length === 0, 'both have it from the store');
  expectations.nothingWrong([...blobs, ...next], store);
  for (const blob of next) expectations.recovered(blob);
  return {
    fault: 'two processes, one store',
    client: `${blobs.map((blob) => tellBlob(blob, SIZE)).join(' and ')}; ${tellRequests(requests, SIZE)}`,
    store: tellStore(store),
    next: `${next.map((blob) => tellBlob(blob, SIZE)).join(' and ')}; ${again.length} upstream`,
    wrong: expectations.wrong,
  };
}

/** The store on a file system of its own that is too small, and later is large enough. */
export async function runDiskFull(): Promise<FaultRow> {
  const fault = 'disk full';
  if (!(await canMount()))
    return { fault, client: 'skipped: needs root', store: '', next: '', wrong: [], skipped: true };
  await using scene = await Scene.open();
  const { upstream, storeDirectory } = scene;
  await mkdir(storeDirectory);
  const mount = `mount -t tmpfs -o size=${SMALL_DISK} tmpfs "$0" && exec "$@"`;
  const weir = await scene.startWeir({ wrapper: ['unshare', '--mount', 'sh', '-c', mount, storeDirectory] });
  const image = await upstream.push([SIZE]);
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('the image has no layer');
  const client = clientOf(weir);
  const kept = await client.blob(image.repository, image.config);
  const blob = await client.blob(image.repository, layer);
  await weir.settled();
  const requests = await upstream.requests('GET', layer.digest);
  const warm = await client.blob(image.repository, image.config);
  const manifest = await client.manifest(image.repository, 'latest');
  const store = await inspectStore(join('/proc', String(weir.pid), 'root', storeDirectory));
  const remount = ['mount', '-o', `remount,size=${LARGER_DISK}`, storeDirectory];
  await succeeds('nsenter', ['--target', String(weir.pid), '--mount', ...remount]);
  const next = await client.blob(image.repository, layer);

  const expectations = new Expectations();
  expectations.that(blob.right === true, 'what there is no room for is served all the same');
  expectations.that(kept.right === true && warm.right === true, 'what is stored is served');
  expectations.that(manifest.status === 200, 'manifests are served');
  expectations.that(store.leftOver === 0, 'nothing is left over');
  expectations.nothingWrong([blob, warm, next], store);
  expectations.recovered(next);
  return {
    fault,
    client: `${tellBlob(blob, SIZE)}; ${tellRequests(requests, SIZE)}; manifest ${manifest.status}`,
    store: tellStore(store),
    next: `with room again: ${tellBlob(next, SIZE)}`,
    wrong: expectations.wrong,
  };
}

async function pushOne(scene: Scene): Promise<Pick<Pushed, 'repository'> & { layer: Descriptor }> {
  const { repository, layers } = await scene.upstream.push([SIZE]);
  const [layer] = layers;
  if (layer === undefined) throw new Error('the image has no layer');
  return { repository, layer };
}

function clientOf({ url }: WeirProcess): ContainerdClient {
  return new ContainerdClient({ origin: url, ns: HOST, verify: true });
}

async function canMount(): Promise<boolean> {
  const mount = 'mount -t tmpfs tmpfs /mnt';
  return process.getuid?.() === 0 && (await succeeds('unshare', ['--mount', 'sh', '-c', mount]));
}

async function succeeds(command: string, parameters: readonly string[]): Promise<boolean> {
  const child = spawn(command, parameters, { stdio: 'ignore' });
  await once(child, 'close');
  return child.exitCode === 0;
}
