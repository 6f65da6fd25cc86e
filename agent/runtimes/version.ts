/** A runtime's version, as far as its behaviour depends on it. */
export interface Version {
  readonly text: string;
  readonly major: number;
  readonly minor: number;
}

/** Reads `v2.3.7`, `1.6.20~ds1` and `2.1.5-k3s1`; `undefined` when it is no version. */
export function parseVersion(text: string): Version | undefined {
  const [, major, minor] = /^(?:\d+:)?v?(\d{1,4})\.(\d{1,4})(?![\d])/.exec(text.trim()) ?? [];
  return major === undefined || minor === undefined
    ? undefined
    : { text: text.trim(), major: Number(major), minor: Number(minor) };
}

export function isAtLeast(
  { major, minor }: Version,
  wanted: readonly [major: number, minor: number],
): boolean {
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}
