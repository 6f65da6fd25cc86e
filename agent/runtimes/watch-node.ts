import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { pauseUnlessStopped } from '../../process/pause.ts';
import type { AskCri } from './ask-cri.ts';
import type { NodeSight } from './node-sight.ts';
import { seeNode } from './see-node.ts';

/** An operator who sets `config_path`, or upgrades the runtime, is noticed this often. A look reads all of /proc. */
const EVERY_MS = 300_000;
/** What is only half written is whole by then. */
const SETTLE_MS = 1_000;
/** A runtime that is silent is asked again this often at first: it may be starting, as this program is. */
const SILENCE_MS = 3_000;

export interface NodeWatch {
  /** As of the last look that counts. */
  readonly sight: NodeSight;
  close(): Promise<void>;
}

export interface NodeWatchOptions {
  readonly root: string;
  readonly askCri: AskCri;
  readonly onChange: (sight: NodeSight) => void;
  /** Of a look that failed; the sight before it holds. */
  readonly onError: (error: unknown) => void;
  readonly everyMs?: number;
  /**
   * How many times the first look is taken again while the runtime is silent and the node's files alone do not say
   * that it can be configured: what such a look says has files taken away that the runtime may well read.
   */
  readonly patience?: number;
  readonly silenceMs?: number;
  /** Ends the patience. */
  readonly stop?: AbortSignal;
}

/**
 * Looks at a node again and again, and tells of every sight that is not the one before it and lasts for a moment. While
 * the runtime does not answer, as when it is restarted, the sight before that holds.
 *
 * @throws Error when the first look fails.
 */
export async function watchNode(options: NodeWatchOptions): Promise<NodeWatch> {
  const { onChange, onError, everyMs = EVERY_MS } = options;
  const stop = new AbortController();
  let sight = await firstSight(options);

  const look = async (): Promise<NodeSight | undefined> => {
    const next = await lookOnce(options);
    return next.isSilent || isDeepStrictEqual(next.sight, sight) ? undefined : next.sight;
  };
  const lookTwice = async (): Promise<void> => {
    const next = await look();
    if (next === undefined) return;
    await setTimeout(Math.min(SETTLE_MS, everyMs), undefined, { signal: stop.signal });
    if (!isDeepStrictEqual(next, await look()) || stop.signal.aborted) return;
    sight = next;
    onChange(next);
  };
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted)
      try {
        await setTimeout(everyMs, undefined, { signal: stop.signal });
        await lookTwice();
      } catch (error) {
        if (!stop.signal.aborted) onError(error);
      }
  };
  const running = run();
  return {
    get sight() {
      return sight;
    },
    async close() {
      stop.abort();
      await running;
    },
  };
}

async function firstSight(options: NodeWatchOptions): Promise<NodeSight> {
  const { patience = 0, silenceMs = SILENCE_MS, stop = new AbortController().signal } = options;
  for (let left = patience; ; left--) {
    const { sight, isSilent } = await lookOnce(options);
    if (!isSilent || sight.verdict.kind === 'configurable' || left === 0 || stop.aborted) return sight;
    await pauseUnlessStopped(silenceMs, stop);
  }
}

async function lookOnce({
  root,
  askCri,
}: NodeWatchOptions): Promise<{ readonly sight: NodeSight; readonly isSilent: boolean }> {
  let isSilent = false;
  const sight = await seeNode({
    root,
    askCri: (place) =>
      askCri(place).catch((error: unknown) => {
        isSilent = true;
        throw error;
      }),
  });
  return { sight, isSilent };
}
