import type { Path } from './yaml-source.ts';

/** One thing that is wrong with a configuration, or doubtful in it. */
export interface Problem {
  readonly severity: 'error' | 'warning';
  /** 1-based; 0 when the problem is the file as a whole. */
  readonly line: number;
  readonly column: number;
  /** `upstreams.ghcr.io.tags.ttl`; empty when the problem is the file as a whole. */
  readonly key: string;
  readonly message: string;
  /** What to write instead. */
  readonly remedy: string;
}

/** Takes a problem with what stands at this path. */
export type Report = (severity: Problem['severity'], path: Path, message: string, remedy: string) => void;

/** `config.yaml:7:3: error: upstreams.ghcr.io.mirror: … . Remedy.` — the form that editors jump to. */
export function formatProblem(problem: Problem, file: string): string {
  const place = problem.line === 0 ? file : `${file}:${problem.line}:${problem.column}`;
  const key = problem.key === '' ? '' : `${problem.key}: `;
  return `${place}: ${problem.severity}: ${key}${problem.message}. ${problem.remedy}`;
}

/** A configuration that must not come into force, with every reason. */
export class ConfigError extends Error {
  readonly problems: readonly Problem[];

  constructor(file: string, problems: readonly Problem[]) {
    super(problems.map((problem) => formatProblem(problem, file)).join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}
