import { setTimeout } from 'node:timers/promises';
import { SpoolFull } from './spool.ts';
import { WrongBody } from './wrong-body.ts';

/** The bytes of a blob, as the upstream sends them. */
export interface UpstreamBody {
  /** Of the whole blob; `undefined` when the upstream does not say. */
  readonly size: number | undefined;
  /** The offset of the first byte: the one that was asked for, or one before it. */
  readonly start: number;
  readonly version: BlobVersion | undefined;
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Closes the connection of a body that is not read to its end. */
  cancel(): void;
  /** Has another source asked for this blob next time, where there is one: these bytes are wrong. */
  distrust(): void;
}

/** What one origin calls the bytes that it sends: two parts with the same strong ETag are of the same whole. */
export interface BlobVersion {
  readonly origin: string;
  readonly etag: string;
}

/** What is asked of an upstream: the blob from an offset on, of the version that the bytes before it are of. */
export interface BlobRest {
  readonly offset: number;
  readonly version?: BlobVersion | undefined;
}

export const WHOLE: BlobRest = { offset: 0 };

export type FetchRest = (rest: BlobRest, signal: AbortSignal) => Promise<UpstreamBody>;

/** Who reads a blob, and over how many connections does not matter to them. */
export interface Reading {
  readonly fetch: FetchRest;
  /** Is told of each body that is read, and of the size as far as it is known by now. */
  readonly begin: (body: UpstreamBody, size: number | undefined) => void;
  /** Takes the next bytes; `taken` counts them. */
  readonly take: (chunk: Uint8Array, taken: number) => Promise<void>;
  /** Compares bytes that an upstream sends a second time. @throws WrongBody */
  readonly compare?: (chunk: Uint8Array, offset: number) => Promise<void>;
  /** Is awaited before the upstream is asked for the rest. */
  readonly pause?: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** A body that breaks off is asked for again from where it ended, this often without a byte between. */
const MAX_FRUITLESS_TRIES = 2;
const RETRY_PAUSE_MS = 300;
/** A body that brings less than this in the time below is broken off, and asked for again elsewhere. */
const MIN_PROGRESS_BYTES = 32 * 1024;
const PROGRESS_PERIOD_MS = 30_000;

/**
 * Reads a blob from its upstream to the end, over as many connections as that takes. What a body breaks off at is
 * asked for by Range.
 *
 * @throws WrongBody when the parts are not of one whole; SpoolFull of who takes them; Error of the upstream.
 */
export async function readUpstream(reading: Reading): Promise<void> {
  const { signal } = reading;
  const state: State = { taken: 0, size: undefined, version: undefined };
  let fruitless = 0;
  for (;;) {
    const before = state.taken;
    try {
      await readBody(reading, state);
      if (state.size === undefined || state.taken === state.size) return;
      throw new Error(`the body ended after ${state.taken} of ${state.size} bytes`);
    } catch (error) {
      const { taken } = state;
      if (taken === 0 || signal.aborted || error instanceof WrongBody || error instanceof SpoolFull)
        throw error;
      fruitless = taken - before > MIN_PROGRESS_BYTES ? 0 : fruitless + 1;
      if (fruitless >= MAX_FRUITLESS_TRIES) throw error;
      await reading.pause?.();
      await setTimeout(fruitless * RETRY_PAUSE_MS, undefined, { signal });
    }
  }
}

interface State {
  taken: number;
  size: number | undefined;
  version: BlobVersion | undefined;
}

async function readBody(reading: Reading, state: State): Promise<void> {
  const body = await reading.fetch({ offset: state.taken, version: state.version }, reading.signal);
  let at = body.start;
  const pace = keepPace(body, () => at);
  try {
    if (state.size !== undefined && body.size !== undefined && body.size !== state.size)
      throw new WrongBody(`the upstream now tells ${body.size} bytes, before it told ${state.size}`);
    state.size ??= body.size;
    state.version = body.version;
    reading.begin(body, state.size);
    for await (const chunk of body.chunks) {
      const known = chunk.subarray(0, Math.max(0, state.taken - at));
      if (known.length > 0) await reading.compare?.(known, at);
      at += chunk.length;
      if (known.length === chunk.length) continue;
      state.taken += chunk.length - known.length;
      if (state.size !== undefined && state.taken > state.size)
        throw new WrongBody(`the body is longer than the ${state.size} bytes that were told`);
      await reading.take(known.length === 0 ? chunk : chunk.subarray(known.length), state.taken);
    }
  } finally {
    clearInterval(pace);
    body.cancel();
  }
}

/** Breaks off a body that drips: whoever waits for it would wait for ever. */
function keepPace(body: UpstreamBody, at: () => number): NodeJS.Timeout {
  let before = at();
  return setInterval(() => {
    if (at() - before < MIN_PROGRESS_BYTES) body.cancel();
    before = at();
  }, PROGRESS_PERIOD_MS);
}
