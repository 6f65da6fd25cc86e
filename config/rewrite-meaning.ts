import { isLoopback, parseHost } from '../oci/host.ts';
import { isOnDockerHub } from '../oci/reference.ts';
import type { Config } from './config.ts';
import type { Report } from './problem.ts';
import { namesIn, type RawConfig } from './schema.ts';

/** What the webhook was started with, where that is known. */
export interface StartedWith {
  readonly rewriteTo?: string;
}

/** What takes the place of `rewriteTo` where there is none, unless it is known to be another. */
const DOOR = '127.0.0.1:5700';

/** What a name leads to that begins with `rewriteTo`, or with what takes its place. */
export function checkRewrite(raw: RawConfig, config: Config, startedWith: StartedWith, report: Report): void {
  const { fallback, rewriteTo } = config;
  if (fallback === 'always' && isLoopback(rewriteTo ?? startedWith.rewriteTo ?? DOOR))
    report(
      'warning',
      ['fallback'],
      '"always" gives Pods the name of the door of their node, whatever node they come to',
      'CRI-O and nodes without an agent cannot pull by it: with such nodes, set "rewriteTo" to a host that speaks https (or webhook.rewriteTo of the chart).',
    );
  if (rewriteTo === undefined) checkStartedWith(raw, config, startedWith, report);
  else checkRewriteTo(rewriteTo, config, startedWith, report);
}

/** Whatever is rewritten to an upstream's own name would go there, past weir, under a path that it does not have. */
function checkRewriteTo(
  rewriteTo: string,
  { upstreams }: Config,
  startedWith: StartedWith,
  report: Report,
): void {
  if (isOnDockerHub(rewriteTo))
    report(
      'error',
      ['rewriteTo'],
      `in the name of an image, ${rewriteTo} would be Docker Hub`,
      'Name a host with a dot or a port under which nodes reach weir itself, or remove it.',
    );
  else if (upstreams.has(parseHost(rewriteTo) ?? rewriteTo))
    report(
      'error',
      ['rewriteTo'],
      `${rewriteTo} is an upstream, and not weir's registry`,
      'Name a host under which nodes reach weir itself, or remove it.',
    );
  const door = doorIn(startedWith);
  if (isLoopback(rewriteTo) && rewriteTo !== (door ?? DOOR))
    report(
      door === undefined ? 'warning' : 'error',
      ['rewriteTo'],
      `nodes have their door at ${door ?? `${DOOR}, unless the chart says otherwise`}, and not at ${rewriteTo}`,
      'Remove it: the door is taken where there is none. Or name a host under which nodes reach weir itself.',
    );
}

/** Where the webhook was started with an address of the loopback, that is the door. */
function doorIn({ rewriteTo }: StartedWith): string | undefined {
  return rewriteTo !== undefined && isLoopback(rewriteTo) ? rewriteTo : undefined;
}

function checkStartedWith(raw: RawConfig, config: Config, { rewriteTo }: StartedWith, report: Report): void {
  const host = rewriteTo === undefined ? undefined : parseHost(rewriteTo);
  if (host === undefined || !config.upstreams.has(host)) return;
  report(
    'error',
    namesIn(raw).find(([, name]) => parseHost(name) === host) ?? ['upstreams'],
    `${host} is what the webhook was started with as the host of weir's own registry`,
    'Set "rewriteTo" to a host under which nodes reach weir itself, correct webhook.rewriteTo of the chart, or take the upstream out.',
  );
}
