import { runCrowd } from './crowd.ts';
import type { FaultRow } from './fault-row.ts';
import { runClientLeaves, runDiskFull, runKilled, runTwoProcesses } from './local-faults.ts';
import { isMinioMade, MinioProcess } from './minio-process.ts';
import { runKilledUploading, runReplicaKilled, runTwoReplicas } from './replica-faults.ts';
import type { BenchOptions, Report } from './report.ts';
import { runS3Fault, S3_FAULTS, SLOW_S3_FAULTS } from './s3-faults.ts';
import { runOverwritten } from './s3-overwritten.ts';
import { runStaleTags } from './stale-tags.ts';
import {
  runRefused,
  runUnknownName,
  runUpstreamFault,
  SLOW_UPSTREAM_FAULTS,
  UPSTREAM_FAULTS,
} from './upstream-faults.ts';

/** Everything that can go wrong, each in a scene of its own. */
export async function benchFaults({ kind }: BenchOptions): Promise<Report> {
  const rows = [
    ...(kind === 's3' ? [] : await runFileRows()),
    ...(kind === 'file' ? [] : await runS3Rows(kind === 's3')),
  ];
  const wrong = rows.filter((row) => row.wrong.length > 0);
  return {
    data: rows,
    title: `Faults: ${rows.length} rows, ${wrong.length} wrong`,
    columns: ['', 'fault', 'client', 'store afterwards', 'next pull'],
    rows: rows.map((row) => [verdictOn(row), row.fault, row.client, row.store, row.next]),
    notes: wrong.map(
      ({ fault, wrong: unmet }) => `WRONG: ${fault}: expected that ${unmet.join(', and that ')}`,
    ),
    ok: wrong.length === 0,
  };
}

/** Over a store of files: they are about the upstream, the client and the disk. */
async function runFileRows(): Promise<FaultRow[]> {
  const slow = Promise.all(SLOW_UPSTREAM_FAULTS.map(runUpstreamFault));
  const rows: FaultRow[] = [await runCrowd(), await runClientLeaves()];
  for (const fault of UPSTREAM_FAULTS) rows.push(await runUpstreamFault(fault));
  for (const run of [runRefused, runUnknownName, runKilled, runDiskFull, runTwoProcesses])
    rows.push(await run());
  rows.push(...(await runStaleTags()), ...(await slow));
  return rows;
}

/** Over a bucket: they are about S3. */
async function runS3Rows(mayBuild: boolean): Promise<FaultRow[]> {
  if (!mayBuild && !isMinioMade()) {
    const client = 'skipped: MinIO is not built; npm run bench -- faults --store s3 builds it';
    return [{ fault: 'S3', client, store: '', next: '', wrong: [], skipped: true }];
  }
  await using minio = await MinioProcess.start();
  const slow = Promise.all(SLOW_S3_FAULTS.map((fault) => runS3Fault(minio, fault)));
  const rows: FaultRow[] = [];
  for (const fault of S3_FAULTS) rows.push(await runS3Fault(minio, fault));
  for (const run of [runOverwritten, runTwoReplicas, runReplicaKilled, runKilledUploading])
    rows.push(await run(minio));
  rows.push(...(await slow));
  return rows;
}

function verdictOn({ wrong, skipped }: FaultRow): string {
  if (skipped === true) return 'skipped';
  return wrong.length > 0 ? 'WRONG' : 'ok';
}
