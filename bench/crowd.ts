import { cpuSeconds } from './child.ts';
import { ContainerdClient } from './containerd-client.ts';
import { bytesOver, Expectations, type FaultRow, inspectStore, tellStore } from './fault-row.ts';
import { Scene } from './scene.ts';
import { HOST } from './weir-process.ts';

const CLIENTS = 50;
const SIZE = 200_000_000;
/** So many compare what they get with its digest; for all of them would be a benchmark of SHA-256. */
const VERIFYING = 3;
const GIB = 1024 ** 3;

/** Many nodes ask at once for an image that is not there yet. */
export async function runCrowd(): Promise<FaultRow> {
  await using scene = await Scene.open();
  const { upstream } = scene;
  const weir = await scene.startWeir();
  const image = await upstream.push([SIZE]);
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('the image has no layer');
  const before = await cpuSeconds(weir.pid);
  const began = performance.now();
  const pulls = await Promise.all(
    Array.from({ length: CLIENTS }, async (_, index) => {
      const client = new ContainerdClient({ origin: weir.url, ns: HOST, verify: index < VERIFYING });
      const pulled = await client.pull(image);
      client.close();
      return pulled;
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  await weir.settled();
  const cpu = ((await cpuSeconds(weir.pid)) - before) / ((CLIENTS * SIZE) / GIB);
  const store = await inspectStore(scene.storeDirectory);
  const { requests } = await upstream.seen();
  const ofLayer = requests.filter(({ path }) => path.includes(layer.digest));
  const ofManifest = requests.filter(({ path }) => path.includes('/manifests/'));
  const filled = Math.max(...ofLayer.map(({ ended }) => ended ?? 0));
  const firstBytes = pulls.map(({ layers }) => layers[0]?.firstByteAt ?? Infinity);
  const early = firstBytes.filter((at) => performance.timeOrigin + at < filled).length;
  const expectations = new Expectations();
  expectations.that(ofLayer.length === 1, 'one request upstream for the layer');
  expectations.that(bytesOver(ofLayer, SIZE) < 1.005, 'the upstream sends 1.00 × its bytes');
  expectations.that(ofManifest.length === 1, 'one request upstream for the manifest');
  expectations.that(early === CLIENTS, 'every client has a first byte before the fill ended');
  expectations.nothingWrong(
    pulls.flatMap(({ layers }) => layers),
    store,
  );
  return {
    fault: `${CLIENTS} clients, one uncached layer of ${SIZE / 1e6} MB`,
    client: `all whole in ${seconds.toFixed(1)} s; first byte before the fill ended: ${early} of ${CLIENTS}`,
    store: tellStore(store),
    next:
      `upstream: ${bytesOver(ofLayer, SIZE).toFixed(2)} × its bytes, ${ofLayer.length} for the layer, ` +
      `${ofManifest.length} for the manifest; weir ${cpu.toFixed(2)} CPU s/GiB served`,
    wrong: expectations.wrong,
  };
}
