/**
 * The difference of two texts as `diff -u` writes it, without the two lines that name the files; empty when they are
 * the same.
 */
export function unifiedDiff(before: string, after: string): string {
  if (before === after) return '';
  const steps = stepsBetween(linesOf(before), linesOf(after));
  return hunksOf(steps).map(formatHunk).join('');
}

interface Step {
  readonly sign: ' ' | '-' | '+';
  /** With its line end, unless it is the last and has none. */
  readonly line: string;
}

interface Hunk {
  /** How many lines of each text come before it. */
  readonly before: number;
  readonly after: number;
  readonly steps: readonly Step[];
}

const CONTEXT = 3;
/** Of lines in one text times lines in the other: above it, what differs is shown as a whole. */
const MAX_CELLS = 4_000_000;

function linesOf(text: string): readonly string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

function stepsBetween(before: readonly string[], after: readonly string[]): readonly Step[] {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let end = 0;
  while (
    end < before.length - start &&
    end < after.length - start &&
    before[before.length - 1 - end] === after[after.length - 1 - end]
  )
    end++;
  return [
    ...before.slice(0, start).map(same),
    ...changed(before.slice(start, before.length - end), after.slice(start, after.length - end)),
    ...before.slice(before.length - end).map(same),
  ];
}

function same(line: string): Step {
  return { sign: ' ', line };
}

/** By the longest common subsequence of lines. */
function changed(before: readonly string[], after: readonly string[]): readonly Step[] {
  const steps: Step[] = [];
  let [i, j] = [0, 0];
  if (before.length * after.length <= MAX_CELLS) {
    const lengths = commonLengths(before, after);
    const width = after.length + 1;
    const length = (row: number, column: number): number => lengths[row * width + column] ?? 0;
    while (i < before.length && j < after.length) {
      const line = before[i] ?? '';
      if (line === after[j]) {
        steps.push(same(line));
        i++;
        j++;
      } else if (length(i + 1, j) >= length(i, j + 1)) {
        steps.push({ sign: '-', line });
        i++;
      } else {
        steps.push({ sign: '+', line: after[j] ?? '' });
        j++;
      }
    }
  }
  for (const line of before.slice(i)) steps.push({ sign: '-', line });
  for (const line of after.slice(j)) steps.push({ sign: '+', line });
  return steps;
}

/** Of what follows each pair of places. */
function commonLengths(before: readonly string[], after: readonly string[]): Uint32Array {
  const width = after.length + 1;
  const lengths = new Uint32Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i--)
    for (let j = after.length - 1; j >= 0; j--)
      lengths[i * width + j] =
        before[i] === after[j]
          ? 1 + (lengths[(i + 1) * width + j + 1] ?? 0)
          : Math.max(lengths[(i + 1) * width + j] ?? 0, lengths[i * width + j + 1] ?? 0);
  return lengths;
}

function hunksOf(steps: readonly Step[]): readonly Hunk[] {
  const shown = steps.map((_, index) =>
    steps.slice(Math.max(0, index - CONTEXT), index + CONTEXT + 1).some(({ sign }) => sign !== ' '),
  );
  const hunks: Hunk[] = [];
  let [before, after] = [0, 0];
  let open: { before: number; after: number; steps: Step[] } | undefined;
  for (const [index, step] of steps.entries()) {
    if (shown[index] === true) {
      if (open === undefined) {
        open = { before, after, steps: [] };
        hunks.push(open);
      }
      open.steps.push(step);
    } else open = undefined;
    if (step.sign !== '+') before++;
    if (step.sign !== '-') after++;
  }
  return hunks;
}

function formatHunk({ before, after, steps }: Hunk): string {
  const removed = steps.filter(({ sign }) => sign !== '+').length;
  const added = steps.filter(({ sign }) => sign !== '-').length;
  const lines = steps.map(({ sign, line }) =>
    line.endsWith('\n') ? sign + line : `${sign}${line}\n\\ No newline at end of file\n`,
  );
  return `@@ -${range(before, removed)} +${range(after, added)} @@\n${lines.join('')}`;
}

/** A range without lines is named by the line before it. */
function range(before: number, count: number): string {
  if (count === 0) return `${before},0`;
  return count === 1 ? `${before + 1}` : `${before + 1},${count}`;
}
