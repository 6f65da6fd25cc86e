import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { resolve } from 'node:path';
import { platform } from 'node:process';
import { codeOf, fileProblem } from '../process/file-problem.ts';
import { pauseUnlessStopped } from '../process/pause.ts';
import { pathOnNode, resolveOnNode } from './node-root.ts';
import type { NodePlace } from './state.ts';

/** Far longer than anybody works on a node's files; whoever has it then hangs, or is no weir. */
const PATIENCE_MS = 30_000;
const AGAIN_MS = 25;

/**
 * Works on a node's files while no other process does: a rollback by hand beside a running agent, or an agent beside
 * one whose Pod was deleted by force, would each remember what the other is about to change.
 *
 * The lock is a name in Linux's abstract namespace of sockets, which all who are on the node's network share, in
 * whatever container: it goes with its process, however that ends, and is no file that could be left behind.
 */
export async function withNodeLock<Result>(
  place: NodePlace,
  act: () => Promise<Result>,
  stop: AbortSignal = new AbortController().signal,
): Promise<Result> {
  const lock = platform === 'linux' ? await take(place, stop) : undefined;
  try {
    return await act();
  } finally {
    if (lock !== undefined) await release(lock);
  }
}

/** `undefined`: to be done without, since it is not to be had. */
async function take(place: NodePlace, stop: AbortSignal): Promise<Server | undefined> {
  const path = `\0weir/${await identityOf(place)}`;
  const until = performance.now() + PATIENCE_MS;
  while (!stop.aborted) {
    const server = createServer((socket) => socket.destroy());
    try {
      server.listen({ path });
      await once(server, 'listening');
      return server;
    } catch (error) {
      if (codeOf(error) !== 'EADDRINUSE' || performance.now() > until) {
        place.log.warn({ err: error }, "the node's files are worked on without the lock");
        return undefined;
      }
    }
    await pauseUnlessStopped(AGAIN_MS, stop);
  }
  return undefined;
}

async function release(lock: Server): Promise<void> {
  const closed = once(lock, 'close');
  lock.close();
  await closed;
}

/** The same, however the node's file system is mounted. */
async function identityOf({ root: given = '/', stateDir }: NodePlace): Promise<string> {
  const root = resolve(given);
  const real = await resolveOnNode(root, pathOnNode(root, resolve(stateDir)));
  const { dev, ino } = await stat(root).catch((error: unknown) => {
    throw fileProblem('look at', root, error);
  });
  return createHash('sha256')
    .update(`${dev}:${ino}:${pathOnNode(root, real)}`)
    .digest('hex')
    .slice(0, 32);
}
