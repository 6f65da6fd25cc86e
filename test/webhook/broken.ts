// Values that are broken here and there, the same ones for the same seed.

const ODD = [
  null,
  undefined,
  true,
  0,
  -1,
  '',
  'x',
  '__proto__',
  [],
  {},
  [null],
  [[]],
  { a: 1 },
  'nginx',
  '\u0000',
  '😀',
];

const OTHERS = ['😀', ...'{}[]:#-&*!|>"%@`?,~\t\n\u0000e1'.split('')];

/** Numbers from 0 to 1. */
export function numbers(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** A copy in which some values are others. */
export function broken(value: unknown, next: () => number): unknown {
  if (next() < 0.015) return ODD[Math.floor(next() * ODD.length)];
  if (Array.isArray(value)) return value.map((item: unknown) => broken(item, next));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (next() < 0.01 ? [] : [[key, broken(inner, next)]])),
  );
}

/** A copy in which some characters are others, are missing, or are there twice. */
export function brokenText(text: string, next: () => number): string {
  return text
    .split('')
    .map((one) => {
      if (next() > 0.004) return one;
      const how = next();
      if (how < 0.3) return '';
      return how < 0.5 ? one + one : (OTHERS[Math.floor(next() * OTHERS.length)] ?? '');
    })
    .join('');
}
