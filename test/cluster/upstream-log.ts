// The requests that reached the upstreams, a JSON line each.

import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import { codeOf } from '../../process/file-problem.ts';

const requestSchema = z.object({
  time: z.iso.datetime(),
  /** The registry, as images name it. */
  registry: z.string(),
  /** The `Host` that the client asked for. */
  host: z.string(),
  method: z.string(),
  /** With the query. */
  path: z.string(),
  status: z.number(),
  /** Whether the whole answer was taken. */
  complete: z.boolean(),
  /** The address that it came from: a node's, or a Pod's. */
  client: z.string(),
  /** The kind of its `Authorization`: `Bearer`, `Basic` or `none`. */
  authorization: z.string(),
  agent: z.string(),
});

export type UpstreamRequest = z.infer<typeof requestSchema>;

export async function readUpstreamLog(path: string): Promise<UpstreamRequest[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error;
    return '';
  });
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => requestSchema.parse(JSON.parse(line)));
}
