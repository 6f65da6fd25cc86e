// An upstream of the tests: the reference registry on a port of loopback, which can go away and come back
// with what it holds, and whose access log says who asked it for what.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { provide } from '../tools/cache.ts';
import { type Child, start } from '../tools/child.ts';
import { goModule } from '../tools/go-module.ts';
import type { Blob, Image, Index } from './image.ts';
import { freePort } from './port.ts';

export type UpstreamRequest = { method: string; path: string; query: string; status: number; agent: string };

export type Upstream = {
  readonly endpoint: string;
  push: (repository: string, tag: string, image: Image | Index) => Promise<void>;
  up: () => Promise<void>;
  /** Afterwards every request that it answered is in `requests`. */
  down: () => Promise<void>;
  /** What it was asked since the last `forget`. */
  requests: () => UpstreamRequest[];
  forget: () => void;
};

export async function startUpstream(name: string, scratch: string): Promise<Upstream> {
  const registry = join(await provide(goModule('registry')), 'registry');
  const directory = join(scratch, name);
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const configuration = join(directory, 'config.yml');
  await mkdir(directory, { recursive: true });
  await writeFile(configuration, JSON.stringify(configurationOf(join(directory, 'storage'), port)));

  let server: Child | undefined;
  let past: string[] = [];
  const log = () => [...past, ...(server?.lines ?? [])];
  let forgotten = 0;
  const upstream: Upstream = {
    endpoint,
    push: (repository, tag, image) => push(`${endpoint}/v2/${repository}`, tag, image),
    up: async () => {
      if (server !== undefined) return;
      server = await start(registry, ['serve', configuration], {
        // Without this it looks for a collector of traces on this machine.
        env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
        ready: (child) => child.line(/listening on/),
      });
    },
    down: async () => {
      await server?.stop();
      past = log();
      server = undefined;
    },
    requests: () => log().slice(forgotten).flatMap(parseAccess),
    forget: () => {
      forgotten = log().length;
    },
  };
  await upstream.up();
  return upstream;
}

function configurationOf(rootdirectory: string, port: number) {
  return {
    version: '0.1',
    log: { accesslog: { disabled: false }, level: 'info', formatter: 'json' },
    storage: { filesystem: { rootdirectory } },
    // With a time to drain it ends only after the last answer is in its log.
    http: { addr: `127.0.0.1:${port}`, draintimeout: '1s' },
  };
}

/** A line of its access log, in the combined format. */
function parseAccess(line: string): UpstreamRequest[] {
  const found = /^\S+ - \S+ \[[^\]]+\] "(\S+) (\S+) HTTP\/[\d.]+" (\d+) \d+ "[^"]*" "([^"]*)"$/.exec(line);
  if (found === null) return [];
  const [, method = '', target = '', status = '', agent = ''] = found;
  const [path = '', query = ''] = target.split('?');
  return [{ method, path, query, status: Number(status), agent }];
}

async function push(repository: string, reference: string, image: Image | Index): Promise<void> {
  if ('images' in image) {
    for (const entry of image.images) await push(repository, entry.manifest.digest, entry);
  } else {
    for (const blob of image.blobs) await pushBlob(repository, blob);
  }
  const { content, mediaType } = image.manifest;
  await created(`${repository}/manifests/${reference}`, content, mediaType);
}

async function pushBlob(repository: string, blob: Blob): Promise<void> {
  const started = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' });
  const target = new URL(started.headers.get('location') ?? '', repository);
  target.searchParams.set('digest', blob.digest);
  await created(target.href, blob.content, 'application/octet-stream');
}

async function created(url: string, content: Buffer, type: string): Promise<void> {
  const answer = await fetch(url, {
    method: 'PUT',
    body: new Uint8Array(content),
    headers: { 'content-type': type },
  });
  if (answer.status !== 201) throw new Error(`PUT ${url}: ${answer.status} ${await answer.text()}`);
}
