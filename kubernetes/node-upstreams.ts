import * as z from 'zod';
import { parseJson } from '../oci/json.ts';

/** Of a node: a JSON object of upstream hosts, with how each of them stands there (`{"docker.io":"configured"}`). */
export const UPSTREAMS_ANNOTATION = 'weir.dev/upstreams';

/**
 * Of a node: a JSON object of those upstream hosts that are not as the configuration says, with why in a word
 * (`{"docker.io":"ENOSPC"}`).
 */
export const REASONS_ANNOTATION = 'weir.dev/reasons';

/** All annotations of an object may be 256 KiB together (k8s.io/apimachinery, TotalAnnotationSizeLimitB). */
const MAX_BYTES = 100 * 1024;

const annotation = z.record(z.string(), z.string());

/**
 * The annotation, sorted by host. Where it would be too long, `configured` hosts are left out, since that is what
 * becomes of a host that is not named; then the last of the others.
 */
export function formatUpstreams(upstreams: ReadonlyMap<string, string>): string {
  const sorted = [...upstreams].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const whole = JSON.stringify(Object.fromEntries(sorted));
  if (Buffer.byteLength(whole) <= MAX_BYTES) return whole;
  const kept: [string, string][] = [];
  let bytes = '{}'.length;
  for (const [host, state] of sorted) {
    if (state === 'configured') continue;
    bytes += Buffer.byteLength(`${JSON.stringify(host)}:${JSON.stringify(state)},`);
    if (bytes > MAX_BYTES) break;
    kept.push([host, state]);
  }
  return JSON.stringify(Object.fromEntries(kept));
}

/** What the annotation says; nothing when it is missing, or is not what weir writes. */
export function parseUpstreams(text: string | undefined): ReadonlyMap<string, string> {
  // Whoever may edit the node may have written it; the agent's next report puts it right.
  const { data = {} } = annotation.safeParse(parseJson(text ?? ''));
  return new Map(Object.entries(data));
}
