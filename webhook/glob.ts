/** A pattern with `*` and `?` as a regular expression that both JavaScript and RE2 (in CEL) read alike. */
export function globExpression(pattern: string): string {
  const escaped = pattern.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
  return `^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`;
}

/** Whether one of the patterns fits the whole text. */
export function fits(patterns: readonly string[], text: string): boolean {
  return patterns.some((pattern) => new RegExp(globExpression(pattern)).test(text));
}
