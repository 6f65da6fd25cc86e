import type { Hash } from 'node:crypto';
import { readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { type Algorithm, hasherFor } from '../oci/digest.ts';
import type { HashReply, HashRequest } from './hash-pool.ts';

/** The thread of a {@link HashPool}: follows growing files by their descriptors, which all threads share. */
const CHUNK_BYTES = 1024 * 1024;
const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
const running = new Map<number, { hash: Hash; offset: number }>();

parentPort?.on('message', (request: HashRequest) => {
  parentPort?.postMessage(answer(request) satisfies HashReply);
});

function answer(request: HashRequest): HashReply {
  const { id } = request;
  try {
    if (request.kind === 'drop') {
      running.delete(id);
      return { id, kind: 'dropped' };
    }
    if (request.kind === 'part') {
      const { descriptor, start, length } = request;
      const part = { hash: hasherFor('sha256'), offset: start };
      follow(part, descriptor, start + length);
      return { id, kind: 'digest', hex: part.hash.digest('hex') };
    }
    const state = running.get(id) ?? begin(id, request.algorithm);
    follow(state, request.descriptor, request.upTo);
    if (!request.final) return { id, kind: 'hashed', upTo: state.offset };
    running.delete(id);
    return { id, kind: 'digest', hex: state.hash.digest('hex') };
  } catch (error) {
    running.delete(id);
    return { id, kind: 'failed', message: error instanceof Error ? error.message : String(error) };
  }
}

function begin(id: number, algorithm: Algorithm): { hash: Hash; offset: number } {
  const state = { hash: hasherFor(algorithm), offset: 0 };
  running.set(id, state);
  return state;
}

function follow(state: { hash: Hash; offset: number }, descriptor: number, upTo: number): void {
  while (state.offset < upTo) {
    const length = readSync(descriptor, buffer, 0, Math.min(CHUNK_BYTES, upTo - state.offset), state.offset);
    if (length === 0) throw new Error(`the spool file ends at byte ${state.offset}, before byte ${upTo}`);
    state.hash.update(buffer.subarray(0, length));
    state.offset += length;
  }
}
