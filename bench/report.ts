/** What the command line asks of a benchmark. */
export interface BenchOptions {
  /** As it was asked for. */
  readonly kind: 'file' | 's3' | undefined;
  /** For `--store` of weir; `undefined`: files in a directory of their own. */
  readonly store: string | undefined;
  /** Of the S3 server that runs beside, whose processor time is told apart. */
  readonly serverPid: number | undefined;
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
