import { createHash } from 'node:crypto';
import type { Config } from './config.ts';
import { parseConfig } from './parse.ts';
import type { Problem } from './problem.ts';

/** One text of the configuration, and what it says. */
export interface ConfigVersion {
  readonly text: string;
  readonly config: Config;
  readonly warnings: readonly Problem[];
  /** SHA-256 of the text in hex, so that two places can tell whether they have the same. */
  readonly hash: string;
}

/**
 * Reads a text of the configuration; `origin` is the place that its problems name.
 *
 * @throws ConfigError when it is refused.
 */
export function readVersion(text: string, origin: string): ConfigVersion {
  return {
    text,
    ...parseConfig(text, origin),
    hash: createHash('sha256').update(text).digest('hex'),
  };
}
