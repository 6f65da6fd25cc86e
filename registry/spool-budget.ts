import { SpoolFull } from './spool.ts';

const STEP_BYTES = 16 * 1024 * 1024;
/** What may wait for the disk of one body before its upstream is made to wait. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;
/** Of all bodies together; a crowd of them would otherwise fill the memory as soon as the disk is busy. */
const MAX_WAITING_TOGETHER_BYTES = 48 * 1024 * 1024;
/** Every body gets on with this much, however many there are. */
const MIN_WAITING_BYTES = 256 * 1024;

/** How much bodies on their way may take together: of the local disk, in bytes, and of memory until they are there. */
export class SpoolBudget {
  readonly #limit: number;
  readonly waiting = new WaitingBytes();
  #reserved = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Opens an account for one body. */
  open(): SpoolAccount {
    let mine = 0;
    const grow = (bytes: number): void => {
      if (bytes <= mine) return;
      if (this.#reserved + bytes - mine > this.#limit)
        throw new SpoolFull(
          `bodies on their way may take ${this.#limit} bytes of the local disk, and these are in use`,
        );
      this.#reserved += bytes - mine;
      mine = bytes;
    };
    return {
      reserve: grow,
      cover: (bytes) => {
        if (bytes > mine) grow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES);
      },
      close: () => {
        this.#reserved -= mine;
        mine = 0;
      },
    };
  }
}

/** Bytes of all bodies that are in memory and not on the disk yet. */
export class WaitingBytes {
  #together = 0;

  get bytes(): number {
    return this.#together;
  }

  add(bytes: number): void {
    this.#together += bytes;
  }

  remove(bytes: number): void {
    this.#together -= bytes;
  }

  /** Whether a body of which so many bytes wait is to bring no more for now. */
  isEnough(mine: number): boolean {
    const limit = this.#together > MAX_WAITING_TOGETHER_BYTES ? MIN_WAITING_BYTES : MAX_WAITING_BYTES;
    return mine > limit;
  }
}

export interface SpoolAccount {
  /** Sets aside what a body is known to need. @throws SpoolFull when that is too much now. */
  reserve(bytes: number): void;
  /** Sets aside, in steps, what a body of unknown length has come to. @throws SpoolFull as above. */
  cover(bytes: number): void;
  close(): void;
}
