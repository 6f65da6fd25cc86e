import { SpoolFull } from './spool.ts';

const STEP_BYTES = 16 * 1024 * 1024;

/** How much of the local disk bodies on their way may take together, in bytes. */
export class SpoolBudget {
  readonly #limit: number;
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

export interface SpoolAccount {
  /** Sets aside what a body is known to need. @throws SpoolFull when that is too much now. */
  reserve(bytes: number): void;
  /** Sets aside, in steps, what a body of unknown length has come to. @throws SpoolFull as above. */
  cover(bytes: number): void;
  close(): void;
}
