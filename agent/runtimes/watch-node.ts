import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { AskCri } from './ask-cri.ts';
import type { NodeSight } from './node-sight.ts';
import { seeNode } from './see-node.ts';

/** An operator who sets `config_path`, or upgrades the runtime, is noticed this often. A look reads all of /proc. */
const EVERY_MS = 300_000;
/** What is only half written is whole by then. */
const SETTLE_MS = 1_000;

export interface NodeWatch {
  /** As of the last look that counts. */
  readonly sight: NodeSight;
  close(): Promise<void>;
}

/**
 * Looks at a node again and again, and tells of every sight that is not the one before it and lasts for a moment. While
 * the runtime does not answer, as when it is restarted, the sight before that holds.
 *
 * @throws Error when the first look fails.
 */
export async function watchNode(options: {
  readonly root: string;
  readonly askCri: AskCri;
  readonly onChange: (sight: NodeSight) => void;
  /** Of a look that failed; the sight before it holds. */
  readonly onError: (error: unknown) => void;
  readonly everyMs?: number;
}): Promise<NodeWatch> {
  const { root, askCri, onChange, onError, everyMs = EVERY_MS } = options;
  const stop = new AbortController();
  let sight = await seeNode({ root, askCri });

  const look = async (): Promise<NodeSight | undefined> => {
    let isSilent = false;
    const next = await seeNode({
      root,
      askCri: (place) =>
        askCri(place).catch((error: unknown) => {
          isSilent = true;
          throw error;
        }),
    });
    return isSilent || isDeepStrictEqual(next, sight) ? undefined : next;
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
