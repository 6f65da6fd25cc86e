/** What the command line asks of a benchmark. */
export interface BenchOptions {
  /** For `--store`; `undefined`: files in a directory of their own. */
  readonly store: string | undefined;
  /** Whether the upstream wants a token. */
  readonly tokens: boolean;
  /** Whether clients compare what they get with its digest, on both sides. */
  readonly verify: boolean;
  /** Directory for a profile of weir. */
  readonly profile: string | undefined;
}

/** What a benchmark found, for a program and for a person. */
export interface Report {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly notes: readonly string[];
  /** The numbers, as `--json` gives them. */
  readonly data: unknown;
  /** Whether everything was as it has to be. */
  readonly ok: boolean;
}
