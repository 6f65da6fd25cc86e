// The world outside of the test cluster, as one program: the registries, each on its own address under its own
// names, over TLS, and a resolver that knows them. Started by cluster.ts as
//
//	node upstream.ts DIRECTORY
//
// with the certificate in DIRECTORY/tls.crt and tls.key. It serves DIRECTORY/registries and writes a line for
// each request to DIRECTORY/requests.jsonl.

import { appendFileSync, createReadStream, readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { answerFrom, serveDns } from './dns.ts';
import { PUBLIC_DNS, REGISTRIES, type RegistryHost } from './layout.ts';
import { challenge, issueToken, tokenAnswer } from './upstream-access.ts';
import type { UpstreamRequest } from './upstream-log.ts';
import { type HeldFile, mediaTypeOf, UpstreamStore } from './upstream-store.ts';

const HTTPS = 443;
const [directory = '.'] = process.argv.slice(2);

const key = readFileSync(join(directory, 'tls.key'));
const cert = readFileSync(join(directory, 'tls.crt'));
for (const registry of REGISTRIES) {
  const store = new UpstreamStore(join(directory, 'registries', registry.name));
  createServer({ key, cert }, (request, response) => {
    response.once('close', () => note(registry, request, response));
    answer(registry, store, request, response).catch((error: unknown) => {
      console.error(error);
      response.destroy();
    });
  }).listen(HTTPS, registry.address);
}
const names = new Map(REGISTRIES.flatMap(({ hosts, address }) => hosts.map((host) => [host, [address]])));
serveDns(PUBLIC_DNS, async (query) => answerFrom(query, (name) => names.get(name)));

async function answer(
  registry: RegistryHost,
  store: UpstreamStore,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', `https://${request.headers.host ?? registry.name}`);
  if (url.href.split('?', 1)[0] === registry.realm) {
    const token = issueToken(registry, request, url);
    if (token === undefined) sendError(response, 401, 'UNAUTHORIZED');
    else sendJson(response, 200, tokenAnswer(token));
    return;
  }
  const [, repository = '', kind, reference = ''] =
    /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(url.pathname) ?? [];
  const refusal = challenge(registry, request, repository);
  if (refusal !== undefined) {
    response.setHeader('www-authenticate', refusal);
    sendError(response, 401, 'UNAUTHORIZED');
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    sendError(response, 405, 'UNSUPPORTED');
  } else if (url.pathname === '/v2/') {
    sendJson(response, 200, {});
  } else if (kind === 'manifests') {
    const manifest = await store.manifest(repository, reference);
    if (manifest === undefined) sendError(response, 404, 'MANIFEST_UNKNOWN');
    else await sendFile(request, response, manifest, await mediaTypeOf(manifest));
  } else {
    const blob = kind === 'blobs' ? await store.blob(repository, reference) : undefined;
    if (blob === undefined) sendError(response, 404, kind === 'blobs' ? 'BLOB_UNKNOWN' : 'UNSUPPORTED');
    else await sendFile(request, response, blob, 'application/octet-stream');
  }
}

async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  file: HeldFile,
  type: string,
): Promise<void> {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const part = start > 0 && start < file.size;
  response.writeHead(part ? 206 : 200, {
    'content-type': type,
    'content-length': part ? file.size - start : file.size,
    'docker-content-digest': file.digest,
    'accept-ranges': 'bytes',
    ...(part && { 'content-range': `bytes ${start}-${file.size - 1}/${file.size}` }),
  });
  if (request.method === 'HEAD') response.end();
  // A client that has left has what it wanted.
  else await pipeline(createReadStream(file.path, part ? { start } : {}), response).catch(() => undefined);
}

function sendError(response: ServerResponse, status: number, code: string): void {
  sendJson(response, status, { errors: [{ code, message: code.toLowerCase() }] });
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function note(registry: RegistryHost, request: IncomingMessage, response: ServerResponse): void {
  const seen: UpstreamRequest = {
    time: new Date().toISOString(),
    registry: registry.name,
    host: request.headers.host ?? '',
    method: request.method ?? '',
    path: request.url ?? '',
    status: response.statusCode,
    complete: response.writableFinished,
    client: request.socket.remoteAddress ?? '',
    authorization: request.headers.authorization?.split(' ', 1)[0] ?? 'none',
    agent: request.headers['user-agent'] ?? '',
  };
  appendFileSync(join(directory, 'requests.jsonl'), `${JSON.stringify(seen)}\n`);
}
