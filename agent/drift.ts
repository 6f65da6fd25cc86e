import { basename } from 'node:path';
import { watch } from 'chokidar';
import { isLeftover } from '../process/durable-file.ts';

export interface DriftWatch {
  readonly ready: Promise<void>;
  close(): Promise<void>;
}

/**
 * Calls `onDrift` soon after anything below the certificates directory changed, our own writes included, and once
 * when the watch has begun. The directory may be missing, and come back.
 */
export function watchDrift(options: {
  readonly directory: string;
  readonly onDrift: () => void;
  readonly onError: (error: unknown) => void;
}): DriftWatch {
  let timer: NodeJS.Timeout | undefined;
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      options.onDrift();
    }, SETTLE_MS);
  };
  const watcher = watch(options.directory, {
    ignoreInitial: true,
    // The directory, the hosts' directories, and what is in those.
    depth: 1,
    followSymlinks: false,
    ignored: (path) => isLeftover(basename(path)),
  });
  const ready = new Promise<void>((resolve) => {
    watcher.on('ready', resolve);
  });
  watcher.on('all', soon).on('ready', soon).on('error', options.onError);
  return {
    ready,
    async close() {
      await watcher.close();
      clearTimeout(timer);
    },
  };
}

/** A file that somebody is about to write is empty for a moment: it is not to be taken for a truncated one. */
const SETTLE_MS = 200;
