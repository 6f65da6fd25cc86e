/**
 * `npm test`: every tier that this machine can run. A tier that it cannot run is skipped aloud; under `CI=true`
 * that is a failure. `npm test -- unit` runs the tiers that are named.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import * as chart from './chart/tier.ts';
import * as cluster from './cluster/tier.ts';
import * as conformance from './conformance/tier.ts';
import * as containerd from './containerd/tier.ts';
import * as image from './image/tier.ts';
import * as s3 from './s3/tier.ts';

interface Tier {
  readonly name: string;
  /** Why this machine cannot run it; `undefined` when it can. */
  missing(): Promise<string | undefined>;
  /** @returns whether all of it passed. */
  run(): Promise<boolean>;
}

/** No test takes longer, unless it says so itself. */
const TEST_TIMEOUT_MS = 120_000;
const root = join(import.meta.dirname, '..');

const tiers: readonly Tier[] = [
  {
    name: 'check',
    missing: async () => undefined,
    run: async () =>
      (await succeeds('tsc', [])) &&
      (await succeeds('biome', ['check', '.'])) &&
      (await succeeds('oxlint', ['--type-aware'])),
  },
  {
    name: 'unit',
    missing: async () => undefined,
    run: () =>
      runTests(
        globSync('test/{structure,oci,config,process,kubernetes,registry,agent,webhook,cli}/*.test.ts', {
          cwd: root,
        }),
        // They wait more than they work.
        ['--test-concurrency=2'],
      ),
  },
  {
    name: 's3',
    missing: s3.missing,
    async run() {
      await s3.prepare();
      return runTests(globSync('test/s3/*.test.ts', { cwd: root }));
    },
  },
  {
    name: 'conformance',
    missing: conformance.missing,
    async run() {
      await conformance.prepare();
      return runTests(globSync('test/conformance/*.test.ts', { cwd: root }));
    },
  },
  {
    name: 'containerd',
    missing: containerd.missing,
    async run() {
      await containerd.prepare();
      // One of them compares how long pulls take.
      return runApart('test/containerd', 'door.test.ts');
    },
  },
  {
    name: 'image',
    missing: image.missing,
    async run() {
      await image.prepare();
      return runTests(globSync('test/image/*.test.ts', { cwd: root }));
    },
  },
  {
    name: 'chart',
    missing: chart.missing,
    async run() {
      await chart.prepare();
      return runTests(globSync('test/{chart,webhook/cluster}/*.test.ts', { cwd: root }));
    },
  },
  {
    name: 'cluster',
    missing: cluster.missing,
    async run() {
      await cluster.prepare();
      // Each has a whole cluster to itself, and one a hundred Pods.
      return runApart('test/cluster', 'crowd.test.ts');
    },
  },
];

const named = process.argv.slice(2);
const unknown = named.filter((name) => !tiers.some((tier) => tier.name === name));
if (unknown.length > 0) {
  console.error(
    `No tier is called ${unknown.join(' or ')}; there are: ${tiers.map(({ name }) => name).join(', ')}.`,
  );
  process.exit(2);
}

const rows: string[] = [];
let failed = false;
for (const tier of tiers.filter(({ name }) => named.length === 0 || named.includes(name))) {
  const began = performance.now();
  const why = await tier.missing();
  if (why !== undefined) {
    const row = `SKIPPED  ${tier.name}: ${why}`;
    console.error(`\n${'!'.repeat(72)}\n${row}\n${'!'.repeat(72)}\n`);
    rows.push(row);
    failed ||= process.env['CI'] === 'true';
    continue;
  }
  console.log(`\n── ${tier.name} ${'─'.repeat(68 - tier.name.length)}`);
  const passed = await tier.run();
  rows.push(
    `${passed ? 'passed ' : 'FAILED '}  ${tier.name} (${Math.round((performance.now() - began) / 1000)} s)`,
  );
  failed ||= !passed;
}
console.log(`\n${rows.join('\n')}`);
process.exitCode = failed ? 1 : 0;

/** Two files at a time, since they wait more than they work, but for one that has the machine to itself. */
async function runApart(folder: string, name: string): Promise<boolean> {
  const alone = join(folder, name);
  const others = globSync(`${folder}/*.test.ts`, { cwd: root, exclude: [alone] });
  const areWell = await runTests(others, ['--test-concurrency=2']);
  return (await runTests([alone])) && areWell;
}

async function runTests(files: readonly string[], flags: readonly string[] = []): Promise<boolean> {
  if (files.length === 0) throw new Error('no test was found');
  return succeeds(process.execPath, [
    '--test',
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
    ...flags,
    ...files,
  ]);
}

async function succeeds(command: string, parameters: readonly string[]): Promise<boolean> {
  const child = spawn(command, parameters, { cwd: root, stdio: 'inherit' });
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  child.on('error', reject).on('exit', (code) => resolve(code === 0));
  return promise;
}
