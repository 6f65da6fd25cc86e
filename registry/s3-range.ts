import type { AskedRange, ByteRange } from './store.ts';

/** RFC 9110, section 14.1.2. */
export function rangeHeader(asked: AskedRange): string {
  return 'suffix' in asked ? `bytes=-${asked.suffix}` : `bytes=${asked.first}-${asked.last ?? ''}`;
}

/** RFC 9110, section 14.4. @returns `undefined` when the size of the whole is not told. */
export function parseContentRange(text: string): { range: ByteRange; size: number } | undefined {
  const [, start, end, size] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(text) ?? [];
  if (start === undefined || end === undefined || size === undefined) return undefined;
  return { range: { start: Number(start), end: Number(end) }, size: Number(size) };
}
