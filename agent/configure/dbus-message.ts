/**
 * Messages of the D-Bus protocol (D-Bus specification, "Message Protocol"), as far as calls and their answers need
 * them: of any type but file descriptors, and what is sent without signed numbers and fractions.
 */
export interface DbusMessage {
  readonly type: 'call' | 'return' | 'error' | 'signal';
  readonly serial: number;
  readonly replySerial?: number;
  readonly path?: string;
  readonly interface?: string;
  readonly member?: string;
  readonly errorName?: string;
  readonly destination?: string;
  readonly sender?: string;
  /** Types of the body's values: `ss`. */
  readonly signature?: string;
  readonly body?: readonly DbusValue[];
}

/** A dictionary is its pairs, and a variant, when it is read, its value. */
export type DbusValue = string | number | bigint | boolean | readonly DbusValue[] | DbusVariant;

/** A value that is sent with its type. */
export interface DbusVariant {
  readonly type: string;
  readonly value: DbusValue;
}

const TYPES = ['call', 'return', 'error', 'signal'] as const;
const VERSION = 1;
/** Of header fields: their code, and their type. */
const FIELDS = {
  path: [1, 'o'],
  interface: [2, 's'],
  member: [3, 's'],
  errorName: [4, 's'],
  replySerial: [5, 'u'],
  destination: [6, 's'],
  sender: [7, 's'],
  signature: [8, 'g'],
} as const;
type Field = keyof typeof FIELDS;

/** Length of what comes before the header's fields, with their length. */
const FIXED = 16;
/** Far more than any answer that is asked for has. */
const MAX_BYTES = 1024 * 1024;
const ALIGNMENTS: Readonly<Record<string, number>> = {
  n: 2,
  q: 2,
  b: 4,
  i: 4,
  u: 4,
  s: 4,
  o: 4,
  a: 4,
  x: 8,
  t: 8,
  d: 8,
  '(': 8,
  '{': 8,
};

export function writeMessage(message: DbusMessage): Buffer {
  const body = new Writer();
  for (const [index, type] of typesOf(message.signature ?? '').entries())
    body.value(type, message.body?.[index] ?? '');
  const fields = new Writer();
  for (const name of Object.keys(FIELDS).filter(isField)) {
    const [code, type] = FIELDS[name];
    const value = message[name];
    if (value === undefined) continue;
    fields.align(8);
    fields.bytes(Buffer.from([code]));
    fields.value('g', type);
    fields.value(type, value);
  }
  const head = new Writer();
  head.bytes(Buffer.from(['l'.charCodeAt(0), TYPES.indexOf(message.type) + 1, 0, VERSION]));
  head.value('u', body.length);
  head.value('u', message.serial);
  head.value('u', fields.length);
  head.bytes(fields.done());
  head.align(8);
  return Buffer.concat([head.done(), body.done()]);
}

/**
 * The first message of these bytes, and how many of them it takes; `undefined` while it is not all there.
 *
 * @throws Error when it is none.
 */
export function readMessage(bytes: Buffer): { message: DbusMessage; length: number } | undefined {
  if (bytes.length < FIXED) return undefined;
  const isLittle = bytes[0] === 'l'.charCodeAt(0);
  const head = new Reader(bytes, isLittle, 4);
  const [bodyLength, serial, fieldsLength] = [head.u32(), head.u32(), head.u32()];
  const bodyStart = Math.ceil((FIXED + fieldsLength) / 8) * 8;
  const length = bodyStart + bodyLength;
  const type = TYPES[(bytes[1] ?? 0) - 1];
  if (bytes[3] !== VERSION || type === undefined || length > MAX_BYTES)
    throw new Error('what the bus sends is no message of D-Bus that can be read');
  if (bytes.length < length) return undefined;
  const fields: Record<string, DbusValue> = {};
  while (head.at < FIXED + fieldsLength) {
    head.align(8);
    const code = head.value('y');
    const name = Object.keys(FIELDS).find((field) => isField(field) && FIELDS[field][0] === code);
    const value = head.value('v');
    if (name !== undefined) fields[name] = value;
  }
  const reader = new Reader(bytes.subarray(0, length), isLittle, bodyStart);
  const body = typesOf(textOf(fields['signature'])).map((one) => reader.value(one));
  const { replySerial, ...texts } = fields;
  const named = Object.fromEntries(Object.entries(texts).map(([name, value]) => [name, textOf(value)]));
  const message = { ...named, type, serial, body, replySerial: Number(replySerial ?? 0) };
  return { message, length };
}

function textOf(value: DbusValue | undefined): string {
  return typeof value === 'string' ? value : '';
}

function isField(name: string): name is Field {
  return Object.hasOwn(FIELDS, name);
}

/** Each complete type of a signature: of `sa{sv}u` it is `s`, `a{sv}` and `u`. */
function typesOf(signature: string): readonly string[] {
  const types: string[] = [];
  for (let at = 0; at < signature.length; ) {
    const end = typeEnd(signature, at);
    types.push(signature.slice(at, end));
    at = end;
  }
  return types;
}

function typeEnd(signature: string, at: number): number {
  const char = signature[at];
  if (char === undefined) throw new Error(`"${signature}" is no signature of D-Bus`);
  if (char === 'a') return typeEnd(signature, at + 1);
  const close = { '(': ')', '{': '}' }[char];
  if (close === undefined) return at + 1;
  let end = at + 1;
  while (signature[end] !== close) end = typeEnd(signature, end);
  return end + 1;
}

class Writer {
  readonly #parts: Buffer[] = [];
  length = 0;

  bytes(part: Buffer): void {
    this.#parts.push(part);
    this.length += part.length;
  }

  align(to: number): void {
    this.bytes(Buffer.alloc((to - (this.length % to)) % to));
  }

  /** @throws Error of a type that is never sent, and of a value that is of another type. */
  value(type: string, value: DbusValue): void {
    this.align(ALIGNMENTS[type[0] ?? ''] ?? 1);
    if (typeof value === 'object') this.#compound(type, value);
    else if (type === 's' || type === 'o') {
      const text = Buffer.from(`${value}\0`);
      this.value('u', text.length - 1);
      this.bytes(text);
    } else if (type === 'u' || type === 'b') {
      const number = Buffer.alloc(4);
      number.writeUInt32LE(Number(value));
      this.bytes(number);
    } else if (type === 't') {
      const number = Buffer.alloc(8);
      number.writeBigUInt64LE(BigInt(value));
      this.bytes(number);
    } else if (type === 'y') this.bytes(Buffer.from([Number(value)]));
    else if (type === 'g') {
      const text = Buffer.from(`${value}\0`);
      this.bytes(Buffer.from([text.length - 1]));
      this.bytes(text);
    } else throw notSent(type);
  }

  #compound(type: string, value: DbusVariant | readonly DbusValue[]): void {
    if ('type' in value) {
      if (type !== 'v') throw notSent(type);
      this.value('g', value.type);
      this.value(value.type, value.value);
    } else if (type.startsWith('a')) {
      const length = Buffer.alloc(4);
      this.bytes(length);
      // Its length is without what is before the first value.
      this.align(ALIGNMENTS[type[1] ?? ''] ?? 1);
      const start = this.length;
      for (const item of value) this.value(type.slice(1), item);
      length.writeUInt32LE(this.length - start);
    } else if (type.startsWith('(') || type.startsWith('{')) {
      for (const [index, inner] of typesOf(type.slice(1, -1)).entries())
        this.value(inner, value[index] ?? '');
    } else throw notSent(type);
  }

  done(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function notSent(type: string): Error {
  return new Error(`values of the type "${type}" are not sent, or not of this kind`);
}

class Reader {
  at: number;
  readonly #bytes: Buffer;
  readonly #isLittle: boolean;

  constructor(bytes: Buffer, isLittle: boolean, at: number) {
    this.#bytes = bytes;
    this.#isLittle = isLittle;
    this.at = at;
  }

  align(to: number): void {
    this.at = Math.ceil(this.at / to) * to;
  }

  u32(): number {
    const value = this.#isLittle ? this.#bytes.readUInt32LE(this.at) : this.#bytes.readUInt32BE(this.at);
    this.at += 4;
    return value;
  }

  value(type: string): DbusValue {
    const [kind = ''] = type;
    this.align(ALIGNMENTS[kind] ?? 1);
    if (kind === 'y') return this.#bytes.readUInt8(this.at++);
    if (kind === 'b') return this.u32() === 1;
    if (kind === 'u') return this.u32();
    if (kind === 'i') return this.u32() | 0;
    if (kind === 's' || kind === 'o') return this.#text(this.u32());
    if (kind === 'g') return this.#text(this.#bytes.readUInt8(this.at++));
    if (kind === 'v') return this.value(this.#text(this.#bytes.readUInt8(this.at++)));
    if (kind === 'a') return this.#array(type.slice(1));
    if (kind === '(' || kind === '{') return typesOf(type.slice(1, -1)).map((inner) => this.value(inner));
    return this.#wide(kind);
  }

  #wide(kind: string): DbusValue {
    const size = kind === 'n' || kind === 'q' ? 2 : 8;
    const bytes = Buffer.from(this.#bytes.subarray(this.at, this.at + size));
    this.at += size;
    if (!this.#isLittle) bytes.reverse();
    if (kind === 't') return bytes.readBigUInt64LE();
    if (kind === 'x') return bytes.readBigInt64LE();
    if (kind === 'd') return bytes.readDoubleLE();
    if (kind === 'n') return bytes.readInt16LE();
    if (kind === 'q') return bytes.readUInt16LE();
    throw new Error(`values of the type "${kind}" are not read`);
  }

  #text(length: number): string {
    const text = this.#bytes.toString('utf8', this.at, this.at + length);
    this.at += length + 1;
    return text;
  }

  #array(inner: string): readonly DbusValue[] {
    const length = this.u32();
    this.align(ALIGNMENTS[inner[0] ?? ''] ?? 1);
    const end = this.at + length;
    const values: DbusValue[] = [];
    while (this.at < end) values.push(this.value(inner));
    return values;
  }
}
