import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Algorithm, Digest } from '../oci/digest.ts';

export type HashRequest =
  | {
      readonly kind: 'hash';
      readonly id: number;
      readonly algorithm: Algorithm;
      readonly descriptor: number;
      /** The file holds this many bytes by now. */
      readonly upTo: number;
      readonly final: boolean;
    }
  | {
      readonly kind: 'part';
      readonly id: number;
      readonly descriptor: number;
      readonly start: number;
      readonly length: number;
    }
  | { readonly kind: 'drop'; readonly id: number };

export type HashReply =
  | { readonly id: number; readonly kind: 'hashed'; readonly upTo: number }
  | { readonly id: number; readonly kind: 'digest'; readonly hex: string }
  | { readonly id: number; readonly kind: 'failed'; readonly message: string }
  | { readonly id: number; readonly kind: 'dropped' };

/** Beside this file and of its kind: TypeScript as written, JavaScript once it is bundled. */
const WORKER = new URL(`./hash-worker${extname(import.meta.url)}`, import.meta.url);
const MAX_WORKERS = 4;
/** A worker is told of progress in steps, not of every chunk. */
const STEP_BYTES = 4 * 1024 * 1024;

/** The digest of a file that is still being written, computed on another thread while it grows. */
export interface FileHash {
  /** Tells how many bytes the file holds by now. */
  grown(upTo: number): void;
  /** The digest of the whole file of this many bytes. @throws Error when the file cannot be read. */
  finish(length: number): Promise<Digest>;
  /** Resolves when no thread reads the file any more, so that its descriptor can be closed. */
  release(): Promise<void>;
}

interface Job {
  readonly worker: Worker;
  readonly finished: PromiseWithResolvers<string>;
  readonly dropped: PromiseWithResolvers<void>;
}

/**
 * Threads that hash. SHA-256 costs most of a second of CPU for each GiB: on the event loop every client would
 * wait meanwhile.
 */
export class HashPool {
  readonly #size: number;
  readonly #workers: { worker: Worker; jobs: number }[] = [];
  readonly #jobs = new Map<number, Job>();
  #next = 0;

  constructor(size = Math.min(MAX_WORKERS, Math.max(1, availableParallelism() - 1))) {
    this.#size = size;
  }

  /** Begins to follow a file. `descriptor` stays open until {@link FileHash.release} has resolved. */
  follow(descriptor: number, algorithm: Algorithm): FileHash {
    const id = this.#next++;
    const place = this.#place();
    place.jobs += 1;
    const { worker } = place;
    const job: Job = { worker, finished: Promise.withResolvers(), dropped: Promise.withResolvers() };
    // Who gives up on the file before its end does not ask for the digest.
    job.finished.promise.catch(() => undefined);
    this.#jobs.set(id, job);
    let told = 0;
    let released: Promise<void> | undefined;
    const tell = (upTo: number, final: boolean): void => {
      told = upTo;
      worker.postMessage({ kind: 'hash', id, algorithm, descriptor, upTo, final } satisfies HashRequest);
    };
    return {
      grown: (upTo) => {
        if (upTo - told >= STEP_BYTES) tell(upTo, false);
      },
      finish: async (length) => {
        tell(length, true);
        return `${algorithm}:${await job.finished.promise}`;
      },
      release: () => {
        released ??= this.#release(id, job, place);
        return released;
      },
    };
  }

  /** The SHA-256, in hex, of a part of a file, whose descriptor stays open until then. @throws Error when it cannot be read. */
  async sha256(descriptor: number, start: number, length: number): Promise<string> {
    const id = this.#next++;
    const place = this.#place();
    place.jobs += 1;
    const { worker } = place;
    const job: Job = { worker, finished: Promise.withResolvers(), dropped: Promise.withResolvers() };
    this.#jobs.set(id, job);
    worker.postMessage({ kind: 'part', id, descriptor, start, length } satisfies HashRequest);
    try {
      return await job.finished.promise;
    } finally {
      this.#jobs.delete(id);
      place.jobs -= 1;
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map(({ worker }) => worker.terminate()));
  }

  async #release(id: number, job: Job, place: { jobs: number }): Promise<void> {
    job.worker.postMessage({ kind: 'drop', id } satisfies HashRequest);
    await job.dropped.promise;
    this.#jobs.delete(id);
    place.jobs -= 1;
  }

  #place(): { worker: Worker; jobs: number } {
    const idle = this.#workers.toSorted((a, b) => a.jobs - b.jobs)[0];
    if (idle !== undefined && (idle.jobs === 0 || this.#workers.length >= this.#size)) return idle;
    const place = { worker: this.#start(), jobs: 0 };
    this.#workers.push(place);
    return place;
  }

  #start(): Worker {
    const worker = new Worker(WORKER);
    worker.on('message', (reply: HashReply) => this.#settle(reply));
    worker.on('error', (error: unknown) =>
      this.#lost(worker, error instanceof Error ? error : new Error(String(error))),
    );
    worker.on('exit', () => this.#lost(worker, new Error('the hashing thread ended')));
    worker.unref();
    return worker;
  }

  #settle(reply: HashReply): void {
    const job = this.#jobs.get(reply.id);
    if (reply.kind === 'digest') job?.finished.resolve(reply.hex);
    else if (reply.kind === 'failed') job?.finished.reject(new Error(reply.message));
    else if (reply.kind === 'dropped') job?.dropped.resolve();
  }

  /** A thread that is gone fails what it was working on; the next file gets another one. */
  #lost(worker: Worker, error: Error): void {
    const at = this.#workers.findIndex((place) => place.worker === worker);
    if (at !== -1) this.#workers.splice(at, 1);
    for (const job of this.#jobs.values()) {
      if (job.worker !== worker) continue;
      job.finished.reject(error);
      job.dropped.resolve();
    }
  }
}
