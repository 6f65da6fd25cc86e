import type { ServerResponse } from 'node:http';
import type { Content } from './generated-image.ts';

/** A part of a content on its way to one client. */
export interface Sending {
  readonly response: ServerResponse;
  readonly content: Content;
  readonly start: number;
  /** Offset behind the last byte to send. */
  readonly end: number;
  /** Offset of a byte that is sent wrongly. */
  readonly corrupted: number | undefined;
  /** Called for every piece that was written. */
  readonly onSent: (bytes: number) => void;
}

interface Stream extends Sending {
  offset: number;
  readonly finish: () => void;
}

const TICK_MS = 2;
/** A process that was kept from running catches up with what its link would have carried, up to this. */
const MAX_ARREARS_MS = 100;

/** One line with a byte rate that all bodies share. */
export class Link {
  bytesPerSecond: number;
  readonly #streams = new Set<Stream>();
  #credit = 0;
  #before = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(bytesPerSecond: number) {
    this.bytesPerSecond = bytesPerSecond;
  }

  /** Resolves when the part is written, or the client is gone. */
  async send(sending: Sending): Promise<void> {
    if (sending.start >= sending.end) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const stream: Stream = {
      ...sending,
      offset: sending.start,
      finish: () => {
        this.#streams.delete(stream);
        resolve();
      },
    };
    sending.response.once('close', stream.finish);
    this.#streams.add(stream);
    if (this.#timer === undefined) {
      // What nobody used is lost, as on a real line.
      this.#before = performance.now();
      this.#credit = 0;
      this.#timer = setTimeout(() => this.#tick(), TICK_MS);
    }
    await promise;
    sending.response.off('close', stream.finish);
  }

  #tick(): void {
    this.#timer = this.#streams.size === 0 ? undefined : setTimeout(() => this.#tick(), TICK_MS);
    const now = performance.now();
    const rate = this.bytesPerSecond / 1000;
    this.#credit = Math.min(this.#credit + (now - this.#before) * rate, MAX_ARREARS_MS * rate);
    this.#before = now;
    const ready = [...this.#streams].filter(({ response }) => !response.writableNeedDrain);
    let left = ready.length;
    for (const stream of ready) {
      this.#credit -= write(stream, Math.floor(this.#credit / left));
      left -= 1;
    }
  }
}

/** @returns how many bytes were written. */
function write(stream: Stream, share: number): number {
  const { response, content, end, corrupted } = stream;
  const before = stream.offset;
  const until = Math.min(end, before + share);
  response.cork();
  while (stream.offset < until) {
    const piece = content.slice(stream.offset, until - stream.offset);
    const wrong = corrupted === undefined ? -1 : corrupted - stream.offset;
    response.write(wrong >= 0 && wrong < piece.length ? withWrongByte(piece, wrong) : piece);
    stream.offset += piece.length;
  }
  response.uncork();
  const bytes = stream.offset - before;
  stream.onSent(bytes);
  if (stream.offset === end) stream.finish();
  return bytes;
}

function withWrongByte(piece: Buffer, at: number): Buffer {
  const wrong = Buffer.from(piece);
  wrong.writeUInt8(wrong.readUInt8(at) ^ 1, at);
  return wrong;
}
