import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { codeOf } from '../process/file-problem.ts';
import type { Blob } from './containerd-client.ts';
import type { SeenRequest } from './upstream-control.ts';

/** What a fault led to. */
export interface FaultRow {
  readonly fault: string;
  /** What the client saw, what the store held afterwards, and what the next pull gave. */
  readonly client: string;
  readonly store: string;
  readonly next: string;
  /** Expectations that were not met. */
  readonly wrong: readonly string[];
  readonly skipped?: true;
}

/** Gathers the expectations that are not met. */
export class Expectations {
  readonly wrong: string[] = [];

  that(isMet: boolean, expectation: string): void {
    if (!isMet) this.wrong.push(expectation);
  }

  /** What holds whatever happens: nothing wrong is ever complete, for a client or in the store. */
  nothingWrong(blobs: readonly Blob[], store: StoreContent): void {
    this.that(!blobs.some(({ right }) => right === false), 'no client completes a wrong body');
    this.that(store.damaged === 0, 'the store holds nothing wrong');
  }

  /** After the fault: the blob is whole, and nobody is left waiting. */
  recovered(next: Blob): void {
    this.that(next.right === true, 'the next pull gets the blob');
  }
}

export interface StoreContent {
  readonly whole: number;
  /** Blobs whose bytes are not what their name says. */
  readonly damaged: number;
  /** Files, or uploads, on the way into the store, which nobody fills any more. */
  readonly leftOver: number;
  /** `undefined` of uploads, as nobody tells it. */
  readonly leftOverBytes: number | undefined;
}

/** Reads the filesystem store as it is on disk. */
export async function inspectStore(directory: string): Promise<StoreContent> {
  let [whole, damaged, leftOverBytes] = [0, 0, 0];
  for (const path of await filesIn(join(directory, 'blobs', 'sha256'))) {
    const hash = createHash('sha256');
    await pipeline(createReadStream(path), hash);
    if (path.endsWith(hash.digest('hex'))) whole += 1;
    else damaged += 1;
  }
  const left = await filesIn(join(directory, 'tmp'));
  for (const path of left) leftOverBytes += (await stat(path)).size;
  return { whole, damaged, leftOver: left.length, leftOverBytes };
}

export function tellStore({ whole, damaged, leftOver, leftOverBytes }: StoreContent): string {
  const parts = [
    whole === 0 ? 'nothing' : `${whole} right`,
    ...(damaged === 0 ? [] : [`${damaged} DAMAGED`]),
    ...(leftOver === 0 ? [] : [tellLeftOver(leftOver, leftOverBytes)]),
  ];
  return parts.join('; ');
}

function tellLeftOver(count: number, bytes: number | undefined): string {
  return bytes === undefined
    ? `left over: ${count} upload`
    : `left over: ${count} file, ${Math.round(bytes / 1e6)} MB`;
}

export function tellBlob({ status, whole, right, bytes, milliseconds }: Blob, size: number): string {
  const time = `${Math.round(milliseconds)} ms`;
  if (right === false) return `${status}, WRONG body, ${time}`;
  if (status === 200 && whole) return `200, whole, ${time}`;
  if (status === 200) return `200, cut at ${Math.round((100 * bytes) / size)} %, ${time}`;
  return status === 0 ? `no answer, ${time}` : `${status}, ${time}`;
}

/** The requests for one blob: how many, which offsets, and the bytes in blobs. */
export function tellRequests(requests: readonly SeenRequest[], size: number): string {
  const ranges = requests.filter(({ range }) => range !== undefined).length;
  const resumed = ranges === 0 ? '' : `, ${ranges} by Range`;
  return `${requests.length} upstream${resumed}, ${bytesOver(requests, size).toFixed(2)} × its bytes`;
}

export function bytesOver(requests: readonly SeenRequest[], size: number): number {
  return requests.reduce((sum, { bytes }) => sum + bytes, 0) / size;
}

async function filesIn(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
