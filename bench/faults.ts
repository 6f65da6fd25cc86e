import { runCrowd } from './crowd.ts';
import type { FaultRow } from './fault-row.ts';
import { runClientLeaves, runDiskFull, runKilled, runTwoProcesses } from './local-faults.ts';
import type { Report } from './report.ts';
import { runStaleTags } from './stale-tags.ts';
import {
  runRefused,
  runUnknownName,
  runUpstreamFault,
  SLOW_UPSTREAM_FAULTS,
  UPSTREAM_FAULTS,
} from './upstream-faults.ts';

/** Everything that can go wrong, each in a scene of its own. */
export async function benchFaults(): Promise<Report> {
  const slow = Promise.all(SLOW_UPSTREAM_FAULTS.map(runUpstreamFault));
  const rows: FaultRow[] = [await runCrowd(), await runClientLeaves()];
  for (const fault of UPSTREAM_FAULTS) rows.push(await runUpstreamFault(fault));
  for (const run of [runRefused, runUnknownName, runKilled, runDiskFull, runTwoProcesses])
    rows.push(await run());
  rows.push(...(await runStaleTags()), ...(await slow));
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

function verdictOn({ wrong, skipped }: FaultRow): string {
  if (skipped === true) return 'skipped';
  return wrong.length === 0 ? 'ok' : 'WRONG';
}
