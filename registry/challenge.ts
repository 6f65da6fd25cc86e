/** One challenge of a `WWW-Authenticate` header, its scheme in lower case (RFC 9110, section 11.6.1). */
export interface Challenge {
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;

/**
 * Reads every challenge of a header. Commas part parameters as well as challenges and may stand in quotes
 * (`scope="repository:a/b:pull,push"`), so only the grammar tells where one ends. What does not follow it is
 * passed over up to the next comma.
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(header);
    if (match === null) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  while (at < header.length) {
    take(/[\s,]+/y);
    const name = take(TOKEN);
    if (name === undefined) {
      take(/[^,]*,?/y);
      continue;
    }
    if (take(/\s*=\s*/y) === undefined) {
      challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
      continue;
    }
    const quoted = take(QUOTED);
    const value = quoted === undefined ? take(TOKEN) : quoted.replaceAll(/\\(.)/g, '$1');
    if (value !== undefined) challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
  }
  return challenges;
}
