/** A pattern with `*` and `?` as a regular expression, for RE2 (in CEL), which does not backtrack. */
export function globExpression(pattern: string): string {
  const escaped = pattern.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
  return `^${escaped.replaceAll(/\*+/g, '.*').replaceAll('?', '.')}$`;
}

/** Whether one of the patterns fits the whole text. */
export function fits(patterns: readonly string[], text: string): boolean {
  return patterns.some((pattern) => fitsOne(pattern, text));
}

/** After a slip only the last `*` takes one character more: no pattern takes longer than its length times the text's. */
function fitsOne(pattern: string, text: string): boolean {
  let at = 0;
  let star: { readonly next: number; readonly from: number } | undefined;
  for (let index = 0; index < text.length; ) {
    const wanted = pattern[at];
    if (wanted === '*') {
      at += 1;
      star = { next: at, from: index };
    } else if (wanted === '?' || wanted === text[index]) {
      at += 1;
      index += 1;
    } else if (star === undefined) {
      return false;
    } else {
      star = { ...star, from: star.from + 1 };
      at = star.next;
      index = star.from;
    }
  }
  return /^\**$/.test(pattern.slice(at));
}
