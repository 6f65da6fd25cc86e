/** Where something stands in a text: from the first character to the one behind the last. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface Member {
  readonly key: string;
  /** Of the key. */
  readonly start: number;
  readonly value: Span;
}

/** The members of the object that a JSON text is, where they stand in it. The text has to be JSON. */
export function membersIn(text: string): readonly Member[] {
  const members: Member[] = [];
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (text[at] === '"') {
    const start = at;
    const end = endOfString(text, at);
    const key: unknown = JSON.parse(text.slice(start, end));
    // Behind the colon.
    const value = valueAt(text, skipSpace(text, end) + 1);
    members.push({ key: String(key), start, value });
    at = nextItem(text, value.end);
  }
  return members;
}

/** The elements of the array that begins at `start`. */
export function elementsIn(text: string, start: number): readonly Span[] {
  const elements: Span[] = [];
  let at = skipSpace(text, start + 1);
  while (text[at] !== ']') {
    const element = valueAt(text, at);
    elements.push(element);
    at = nextItem(text, element.end);
  }
  return elements;
}

/** The text without one of the items of an array or an object, and without the comma that held it to another. */
export function withoutItem(text: string, items: readonly Span[], index: number): string {
  const item = items[index];
  if (item === undefined) return text;
  const before = items[index - 1];
  const after = items[index + 1];
  if (before !== undefined) return text.slice(0, before.end) + text.slice(item.end);
  if (after !== undefined) return text.slice(0, item.start) + text.slice(after.start);
  return text.slice(0, item.start).trimEnd() + text.slice(skipSpace(text, item.end));
}

function valueAt(text: string, from: number): Span {
  const start = skipSpace(text, from);
  const first = text[start];
  if (first === '"') return { start, end: endOfString(text, start) };
  if (first !== '{' && first !== '[') {
    let end = start;
    while (end < text.length && !/[\s,\]}]/.test(text.charAt(end))) end += 1;
    return { start, end };
  }
  let depth = 0;
  for (let at = start; at < text.length; ) {
    const one = text[at];
    if (one === '"') {
      at = endOfString(text, at);
      continue;
    }
    if (one === '{' || one === '[') depth += 1;
    if (one === '}' || one === ']') depth -= 1;
    at += 1;
    if (depth === 0) return { start, end: at };
  }
  return { start, end: text.length };
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}

function nextItem(text: string, from: number): number {
  const at = skipSpace(text, from);
  return text[at] === ',' ? skipSpace(text, at + 1) : at;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (at < text.length && /[ \t\r\n]/.test(text.charAt(at))) at += 1;
  return at;
}
