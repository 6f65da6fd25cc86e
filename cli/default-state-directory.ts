import { homedir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';

/** `/var/lib/weir` for root, as on a node; for others the place that is theirs (XDG base directory specification). */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return '/var/lib/weir';
  return join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state'), 'weir');
}
