import { messageOf } from './file-problem.ts';
import type { Logger } from './log.ts';

export interface WatchedFilesOptions<Content> {
  /** Rejects when what is there cannot be used. */
  readonly read: () => Promise<Content>;
  /** What `changed` need not be told of; without it, the first content is told. */
  readonly known?: Content;
  readonly changed: (content: Content) => void;
  readonly log: Logger;
  /** What is logged when the files cannot be used: what stays in use instead. */
  readonly kept: string;
  readonly everyMs?: number;
}

/** Certificates are renewed well ahead, and a kubelet takes a minute to mount them. */
const EVERY_MS = 10_000;

/**
 * Looks at files again and again, and tells when what is in them has changed. What cannot be used is logged once and
 * changes nothing. Watching would have to follow the links by which a kubelet exchanges the files of a volume.
 */
export function watchFiles<Content>(options: WatchedFilesOptions<Content>): { close(): void } {
  const { read, known, changed, log, kept, everyMs = EVERY_MS } = options;
  let seen = known === undefined ? undefined : JSON.stringify(known);
  let problem: string | undefined;
  const look = async (): Promise<void> => {
    try {
      const content = await read();
      problem = undefined;
      const text = JSON.stringify(content);
      if (text === seen) return;
      seen = text;
      changed(content);
    } catch (error) {
      if (problem !== messageOf(error)) log.error({ err: error }, kept);
      problem = messageOf(error);
    }
  };
  if (known === undefined) void look();
  const timer = setInterval(() => void look(), everyMs);
  return { close: () => clearInterval(timer) };
}
