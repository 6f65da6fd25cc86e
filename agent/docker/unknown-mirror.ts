import type { DiskFile } from '../disk-file.ts';
import { mirrorsOf } from './daemon-json.ts';

/**
 * What a person is to know of a daemon.json of which nothing is remembered: JSON has no comments, so nothing in it tells
 * whether a mirror on this machine is ours.
 *
 * @throws Error that says why dockerd would refuse the file.
 */
export function unknownMirror(disk: DiskFile): string | undefined {
  const mirror = mirrorsOf(disk.kind === 'file' ? disk.text : '')?.find(isOnThisMachine);
  return mirror === undefined
    ? undefined
    : `it names the mirror ${mirror}, and nothing is remembered of it in the state directory (was another one given with --state-dir?). If that is weir, take it out and restart dockerd.`;
}

function isOnThisMachine(url: string): boolean {
  const host = URL.canParse(url) ? new URL(url).hostname : '';
  return /^(?:127\.[\d.]+|localhost|\[::1\])$/.test(host);
}
