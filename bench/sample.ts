/** What several rounds gave: the median, and between what they lay. */
export interface Sample {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly rounds: number;
}

export function sampleOf(values: readonly number[]): Sample {
  const sorted = values.toSorted((one, other) => one - other);
  const middle = (sorted.length - 1) / 2;
  const [low = Number.NaN, high = Number.NaN] = [sorted[Math.floor(middle)], sorted[Math.ceil(middle)]];
  return {
    median: (low + high) / 2,
    least: sorted[0] ?? Number.NaN,
    most: sorted.at(-1) ?? Number.NaN,
    rounds: sorted.length,
  };
}

/** `1.02 (0.99–1.05)` */
export function tell({ median, least, most, rounds }: Sample, digits: number): string {
  const [middle, from, to] = [median, least, most].map((value) => value.toFixed(digits));
  return rounds === 1 ? `${middle}` : `${middle} (${from}–${to})`;
}
