import type { Framing } from './door-answer.ts';

/** Finds the body in what arrives on a connection. */
export interface Body {
  /** Whether all of it was taken. */
  readonly done: boolean;
  /** Whether bytes came that are not its own. */
  readonly excess: boolean;
  /** The parts of the body in these bytes. @throws Error when they are malformed. */
  take(bytes: Buffer): Iterable<Buffer>;
  /** The connection has ended. @throws Error when the body has not. */
  end(): void;
}

export function bodyOf(framing: Framing): Body {
  if (framing.kind === 'length') return new CountedBody(framing.length);
  return framing.kind === 'chunked' ? new ChunkedBody() : new OpenBody();
}

class CountedBody implements Body {
  excess = false;
  #left: number;

  constructor(length: number) {
    this.#left = length;
  }

  get done(): boolean {
    return this.#left === 0;
  }

  *take(bytes: Buffer): Iterable<Buffer> {
    const part = bytes.subarray(0, this.#left);
    this.#left -= part.length;
    this.excess ||= part.length < bytes.length;
    if (part.length > 0) yield part;
  }

  end(): void {
    if (!this.done) throw new Error(`the answer ended ${this.#left} bytes early`);
  }
}

/** Ends with the connection. */
class OpenBody implements Body {
  done = false;
  readonly excess = false;

  *take(bytes: Buffer): Iterable<Buffer> {
    if (bytes.length > 0) yield bytes;
  }

  end(): void {
    this.done = true;
  }
}

const MAX_LINE_BYTES = 4096;
const LINE_FEED = 0x0a;

/** RFC 9112, section 7.1. Chunk extensions and trailer fields are dropped. */
class ChunkedBody implements Body {
  excess = false;
  #state: 'size' | 'data' | 'data-end' | 'trailer' | 'done' = 'size';
  #left = 0;
  #line = '';

  get done(): boolean {
    return this.#state === 'done';
  }

  *take(bytes: Buffer): Iterable<Buffer> {
    let at = 0;
    while (at < bytes.length && this.#state !== 'done') {
      if (this.#state === 'data') {
        const part = bytes.subarray(at, at + this.#left);
        at += part.length;
        this.#left -= part.length;
        if (this.#left === 0) this.#state = 'data-end';
        yield part;
      } else {
        const feed = bytes.indexOf(LINE_FEED, at);
        const end = feed === -1 ? bytes.length : feed + 1;
        this.#line += bytes.toString('latin1', at, end);
        at = end;
        if (this.#line.length > MAX_LINE_BYTES) throw new Error('a line of the chunked answer is too long');
        if (feed !== -1) this.#endLine();
      }
    }
    this.excess ||= at < bytes.length;
  }

  end(): void {
    if (!this.done) throw new Error('the chunked answer ended early');
  }

  #endLine(): void {
    const line = this.#line;
    this.#line = '';
    if (!line.endsWith('\r\n')) throw new Error('a line of the chunked answer is malformed');
    if (this.#state === 'size') {
      const [, size] = CHUNK_SIZE.exec(line) ?? [];
      if (size === undefined) throw new Error('a chunk size of the answer is malformed');
      this.#left = Number.parseInt(size, 16);
      this.#state = this.#left === 0 ? 'trailer' : 'data';
    } else if (this.#state === 'trailer') {
      if (line === '\r\n') this.#state = 'done';
    } else {
      if (line !== '\r\n') throw new Error('a chunk of the answer has no end');
      this.#state = 'size';
    }
  }
}

const CHUNK_SIZE = /^([0-9a-fA-F]{1,12})[\t ]*(?:;.*)?\r\n$/;
