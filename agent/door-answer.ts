import type { DoorRequest } from './door-request.ts';
import { endToEnd, valuesOf } from './door-request.ts';

/** How the end of a body is told (RFC 9112, section 6.3). */
export type Framing =
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'close' };

/** What a replica says before the body. */
export interface AnswerHead {
  readonly status: number;
  readonly message: string;
  /** Names and values by turns, without those that concern only one connection. */
  readonly headers: readonly string[];
  readonly framing: Framing;
  /** Whether the connection can be used again after the body. */
  readonly keepAlive: boolean;
}

const MAX_HEAD_BYTES = 64 * 1024;

/**
 * Reads the head of an answer from the first bytes of it; `undefined` while it is not complete.
 *
 * @returns the head and how many bytes it took. Interim answers (1xx) are heads of their own.
 * @throws Error when it is not HTTP/1.1 as a careful server writes it: nothing in it is guessed.
 */
export function readAnswerHead(
  bytes: Buffer,
  method: DoorRequest['method'],
): { readonly head: AnswerHead; readonly length: number } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end > MAX_HEAD_BYTES || (end === -1 && bytes.length > MAX_HEAD_BYTES))
    throw new Error('the head of the answer is too long');
  if (end === -1) return undefined;
  const [first = '', ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
  const [, minor, digits = '', message = ''] = STATUS_LINE.exec(first) ?? [];
  const status = Number(digits);
  if (minor === undefined) throw new Error('the answer is not HTTP/1.1');
  const raw = lines.flatMap((line) => {
    const [, name, value] = FIELD_LINE.exec(line) ?? [];
    if (name === undefined || value === undefined)
      throw new Error('a header line of the answer is malformed');
    return [name, value];
  });
  const framing = framingOf(raw, status, method);
  const isKept = minor === '1' && !valuesOf(raw, 'connection').some((value) => /\bclose\b/i.test(value));
  const head = {
    status,
    message,
    headers: endToEnd(raw),
    framing,
    keepAlive: isKept && framing.kind !== 'close',
  };
  return { head, length: end + 4 };
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t -~\x80-\xff]*))?$/;
const FIELD_LINE = /^([!#$%&'*+.^_`|~\w-]+):[\t ]*([\t -~\x80-\xff]*?)[\t ]*$/;
const LENGTH = /^\d{1,15}$/;

/** Two ways to find the end of one body are how answers are smuggled, so they are refused. */
function framingOf(raw: readonly string[], status: number, method: DoorRequest['method']): Framing {
  const codings = valuesOf(raw, 'transfer-encoding');
  const lengths = valuesOf(raw, 'content-length');
  const [length] = lengths;
  if (codings.length + lengths.length > 1 || (length !== undefined && !LENGTH.test(length)))
    throw new Error('the length of the answer is not clear');
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304)
    return { kind: 'length', length: 0 };
  const [coding] = codings;
  if (coding !== undefined && coding.toLowerCase() !== 'chunked')
    throw new Error(`the answer has an unknown transfer coding`);
  if (coding !== undefined) return { kind: 'chunked' };
  return length === undefined ? { kind: 'close' } : { kind: 'length', length: Number(length) };
}
