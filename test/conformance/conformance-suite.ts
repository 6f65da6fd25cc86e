// The conformance suite of the OCI distribution specification, run as its own command.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { provide } from '../tools/cache.ts';
import { CommandError, run } from '../tools/command.ts';
import { goModule } from '../tools/go-module.ts';

export type CaseStatus = 'passed' | 'skipped' | 'failure' | 'error';

export interface Case {
  /** Its path in the suite, without the suite's own name: `image/pull/blob-get`. */
  readonly name: string;
  readonly status: CaseStatus;
  /** Why it failed; empty otherwise. */
  readonly reason: string;
}

/** Its settings, by the names of its README. */
export type Settings = Readonly<Record<`OCI_${string}`, string>>;

export interface SuiteOptions {
  /** `127.0.0.1:PORT` of a registry without TLS. */
  readonly registry: string;
  /** Directory for its reports. */
  readonly results: string;
  readonly settings: Settings;
}

/**
 * Every case of a run, passed or not.
 *
 * @throws Error when the suite did not get to its report. Its exit code does not tell that: it is also 0 when it
 * cannot read its settings.
 */
export async function runSuite({ registry, results, settings }: SuiteOptions): Promise<Case[]> {
  const command = join(await provide(goModule('conformance')), 'conformance');
  const { PATH } = process.env;
  const env = {
    ...(PATH === undefined ? {} : { PATH }),
    OCI_REGISTRY: registry,
    OCI_TLS: 'disabled',
    OCI_RESULTS_DIR: results,
    OCI_LOG: 'error',
    ...settings,
  };
  await run(command, [], { cwd: results, env }).catch((error: unknown) => {
    // Failing cases are in its report, by name; why it wrote none is what only the error knows.
    if (!(error instanceof CommandError && error.reason.includes('detected a failure'))) throw error;
  });
  return casesOf(await readFile(join(results, 'junit.xml'), 'utf8'));
}

/** The cases of a JUnit report as Go's encoder writes it. */
function casesOf(report: string): Case[] {
  const cases = [...report.matchAll(/<testcase ([^>]*)>(.*?)<\/testcase>/gs)].map(
    ([, attributes = '', body = '']) => ({
      name: textOf(/\bname="([^"]*)"/.exec(attributes)?.[1]).replace(/^[^/]*\//, ''),
      status: statusOf(textOf(/\bstatus="([^"]*)"/.exec(attributes)?.[1])),
      reason: textOf(/<system-out>(.*?)<\/system-out>/s.exec(body)?.[1]),
    }),
  );
  const told = Number(/<testsuites [^>]*\btests="(\d+)"/.exec(report)?.[1]);
  // It counts cases that others gather in too, so that there are more.
  if (!(told >= cases.length)) throw new Error(`the report tells of ${told} cases and holds ${cases.length}`);
  return cases;
}

function statusOf(text: string): CaseStatus {
  if (text === 'passed' || text === 'skipped' || text === 'failure' || text === 'error') return text;
  throw new Error(`"${text}" is no status of a case`);
}

function textOf(xml = ''): string {
  const named = new Map(Object.entries({ lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }));
  return xml.replaceAll(
    /&(?:#x([0-9A-Fa-f]+)|#(\d+)|(\w+));/g,
    (...found: readonly (string | undefined)[]) => {
      const [whole = '', hex, decimal, name = ''] = found;
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
      return named.get(name) ?? whole;
    },
  );
}
