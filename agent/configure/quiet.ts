import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Logger } from 'pino';
import { NotTomlError, parseToml } from '../hosts-file.ts';
import { flagOf, type HostProcess } from '../runtimes/host-processes.ts';
import { type NodeView, viewNode } from '../runtimes/node-view.ts';

/** containerd keeps there what it is just fetching, each in a directory of its own (plugins/content/local). */
const INGEST = 'io.containerd.content.v1.content/ingest';
const DEFAULT_ROOT = '/var/lib/containerd';
/** Longer than a pull that goes on is without a byte, as a rule. */
const LOOK_MS = 2_000;

/**
 * Waits, for so many milliseconds at the most, until nothing is being fetched: a restart breaks off every pull, and
 * the kubelet begins it anew.
 */
export async function untilQuiet(options: {
  readonly root: string;
  /** containerd's main configuration file. */
  readonly main: string | undefined;
  readonly containerd: HostProcess | undefined;
  readonly patienceMs: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { patienceMs, log, signal } = options;
  const view = viewNode(options.root);
  const ingest = join(await rootOf(view, options), INGEST);
  const until = performance.now() + patienceMs;
  let before = await fetched(view, ingest);
  while (before.size > 0) {
    if (performance.now() > until) {
      log.warn({ fetching: before.size }, 'images are still being pulled: they are interrupted');
      return;
    }
    await setTimeout(Math.min(LOOK_MS, patienceMs), undefined, { signal });
    const now = await fetched(view, ingest);
    // What a broken pull left stays there as it is.
    if ([...now].every(([name, size]) => before.get(name) === size)) return;
    before = now;
  }
}

async function rootOf(
  view: NodeView,
  { main, containerd }: { readonly main: string | undefined; readonly containerd: HostProcess | undefined },
): Promise<string> {
  const flag = containerd && flagOf(containerd, '--root');
  if (flag !== undefined) return flag;
  const text = main === undefined ? undefined : (await view.file(main))?.text;
  try {
    const { root } = parseToml(text ?? '');
    return typeof root === 'string' && root !== '' ? root : DEFAULT_ROOT;
  } catch (error) {
    if (error instanceof NotTomlError) return DEFAULT_ROOT;
    throw error;
  }
}

/** By name: how many bytes there are of what is being fetched. */
async function fetched(view: NodeView, ingest: string): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  for (const name of await view.names(ingest)) {
    const path = await view.here(join(ingest, name, 'data'));
    // It may be done meanwhile.
    const size = await stat(path).then(
      (found) => found.size,
      () => undefined,
    );
    if (size !== undefined) sizes.set(name, size);
  }
  return sizes;
}
