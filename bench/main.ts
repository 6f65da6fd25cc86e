/**
 * `npm run bench -- cold|hot|faults [--json]`: what a pull by way of weir costs beside one without, and what is
 * left of it when something goes wrong. Everything is measured in this run, on loopback.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import type { BenchOptions, Report } from './report.ts';
import { formatTable } from './table.ts';

const USAGE = `npm run bench -- cold|hot|faults [--json]
  cold          pulls that nobody made before, weir beside direct
  hot           what is in the store, read by many at once
  faults        everything that can go wrong; exit code 1 when weir does not withstand it
  --store KIND  file (default), or s3, at the URL that WEIR_BENCH_S3 names
  --tokens      the upstream wants a token
  --verify      clients compare what they get with its digest
  --profile DIR a CPU profile of weir`;

const BENCHES: ReadonlyMap<string, () => Promise<(options: BenchOptions) => Promise<Report>>> = new Map([
  ['cold', async () => (await import('./cold.ts')).benchCold],
  ['hot', async () => (await import('./hot.ts')).benchHot],
  ['faults', async () => (await import('./faults.ts')).benchFaults],
]);

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    store: { type: 'string', default: 'file' },
    tokens: { type: 'boolean', default: false },
    verify: { type: 'boolean', default: false },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const load = BENCHES.get(positionals[0] ?? '');
if (load === undefined || values.help) {
  console.error(USAGE);
  process.exit(values.help ? 0 : 2);
}
const bench = await load();
const report = await bench({
  store: storeOf(values.store),
  tokens: values.tokens,
  verify: values.verify,
  profile: values.profile,
});
const { title, columns, rows, notes, data, ok } = report;
if (values.json) console.log(JSON.stringify({ bench: positionals[0], ok, data }, undefined, 2));
else console.log([title, '', formatTable(columns, rows), '', ...notes].join('\n'));
process.exitCode = ok ? 0 : 1;

/** What `--store` is to be given to weir; `undefined`: a directory of the benchmark's own. */
function storeOf(kind: string): string | undefined {
  const url = process.env['WEIR_BENCH_S3'];
  if (kind !== 'file' && kind !== 's3') throw new Error(`"${kind}" is no store; write file or s3`);
  if (kind === 's3' && url === undefined) throw new Error('set WEIR_BENCH_S3 to the store, s3://…');
  return kind === 's3' ? url : undefined;
}
