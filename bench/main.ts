/**
 * `npm run bench -- cold|hot|faults|soak|door|agent|nodes|webhook [--json]`: what a pull by way of weir costs beside one without, what is
 * left of it when something goes wrong, how much memory many of them take, and what very many nodes ask of an API server.
 * Everything is measured in this run, on loopback.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { MinioProcess, missingMinio } from './minio-process.ts';
import type { BenchOptions, Report } from './report.ts';
import { formatTable } from './table.ts';

const USAGE = `npm run bench -- cold|hot|faults|soak|door|agent|nodes|webhook [--json]
  cold          pulls that nobody made before, weir beside direct
  hot           what is in the store, read by many at once
  faults        everything that can go wrong; exit code 1 when weir does not withstand it
  soak          memory of weir while crowds of quick, slow and leaving clients pull; writes some 25 GB to the disk
  door          what a node's door costs for each byte, without and with TLS to the registry
  agent         the agent of one node with a real containerd: how soon an edit is there, memory, processor; as root
  nodes         agents on very many nodes: what they cost the API server, and how soon they have an edit; --nodes N, 1000
  webhook       how much longer it takes to bind a Pod with the webhook
  --store KIND  file, or s3: a MinIO of the benchmark's own. All but faults take file when nothing is said, and for s3
                the store that WEIR_BENCH_S3 names, where it does; faults runs the rows of both, or of one
  --tokens      the upstream wants a token
  --verify      clients compare what they get with its digest
  --profile DIR a CPU profile of weir`;

const BENCHES: ReadonlyMap<string, () => Promise<(options: BenchOptions) => Promise<Report>>> = new Map([
  ['cold', async () => (await import('./cold.ts')).benchCold],
  ['hot', async () => (await import('./hot.ts')).benchHot],
  ['faults', async () => (await import('./faults.ts')).benchFaults],
  ['soak', async () => (await import('./soak.ts')).benchSoak],
  ['door', async () => (await import('./door.ts')).benchDoor],
  ['webhook', async () => (await import('./webhook.ts')).benchWebhook],
  ['agent', async () => (await import('./agent.ts')).benchAgent],
  [
    'nodes',
    async () => {
      const { benchNodes } = await import('./nodes.ts');
      return () => benchNodes(Number(values.nodes));
    },
  ],
]);

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    store: { type: 'string' },
    nodes: { type: 'string', default: '1000' },
    tokens: { type: 'boolean', default: false },
    verify: { type: 'boolean', default: false },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const [name = ''] = positionals;
const load = BENCHES.get(name);
const kind = kindOf(values.store);
if (load === undefined || kind === null || values.help) {
  console.error(USAGE);
  process.exit(values.help ? 0 : 2);
}
const named = name === 'faults' ? undefined : process.env['WEIR_BENCH_S3'];
if (kind === 's3' && named === undefined) {
  const missing = await missingMinio();
  if (missing !== undefined) refuse(missing);
}
await using cleanup = new AsyncDisposableStack();
let minio: MinioProcess | undefined;
// The faults start one by themselves.
if (kind === 's3' && named === undefined && name !== 'faults') {
  try {
    minio = cleanup.use(await MinioProcess.start());
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error));
  }
}
const bench = await load();
const report = await bench({
  kind,
  store: kind === 's3' ? (named ?? minio?.location('bench')) : undefined,
  serverPid: minio?.pid,
  tokens: values.tokens,
  verify: values.verify,
  profile: values.profile,
});
const { title, columns, rows, notes, data, ok } = report;
if (values.json) console.log(JSON.stringify({ bench: name, ok, data }, undefined, 2));
else console.log([title, '', formatTable(columns, rows), '', ...notes].join('\n'));
process.exitCode = ok ? 0 : 1;

/** `null`: there is no such kind. */
function kindOf(text: string | undefined): BenchOptions['kind'] | null {
  return text === undefined || text === 'file' || text === 's3' ? text : null;
}

function refuse(reason: string): never {
  console.error(`no MinIO for --store s3: ${reason.split('\n', 1)[0]}`);
  process.exit(2);
}
