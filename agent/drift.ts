import { basename } from 'node:path';
import { watch } from 'chokidar';
import { isLeftover } from '../process/durable-file.ts';

export interface DriftWatch {
  readonly ready: Promise<void>;
  close(): Promise<void>;
}

/**
 * Calls `onDrift` soon after anything below these directories changed, our own writes included, and once
 * when the watch has begun. They may be missing, and come back.
 */
export function watchDrift(options: {
  readonly directories: Promise<readonly string[]>;
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
  const ready = Promise.withResolvers<void>();
  const watcher = options.directories
    .then((directories) =>
      watch([...directories], {
        ignoreInitial: true,
        // Each directory, the hosts' directories in it, and what is in those.
        depth: 1,
        followSymlinks: false,
        ignored: (path) => isLeftover(basename(path)),
      })
        .on('ready', ready.resolve)
        .on('all', soon)
        .on('ready', soon)
        .on('error', options.onError),
    )
    .catch((error: unknown) => {
      ready.resolve();
      options.onError(error);
      return undefined;
    });
  return {
    ready: ready.promise,
    async close() {
      await (await watcher)?.close();
      clearTimeout(timer);
    },
  };
}

/** A file that somebody is about to write is empty for a moment: it is not to be taken for a truncated one. */
const SETTLE_MS = 200;
