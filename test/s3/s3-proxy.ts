// Stands between the store and a real server: names and counts what is asked, and breaks what a test wants broken.

import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';

export type Fault =
  /** The server is not asked; this is the answer. */
  | { readonly status: number; readonly code: string }
  /** The connection is cut after so many bytes of the server's answer. */
  | { readonly cutAfter: number }
  /** What is written is acknowledged under this ETag, and lost. */
  | { readonly lostAs: string };

export interface S3Proxy {
  readonly endpoint: string;
  /** Operations as the S3 API calls them, in the order in which they were asked. */
  readonly seen: string[];
  /** Of the connection that the last request came on. */
  lastPort: number | undefined;
  /** Asked for every request; what it gives is done to it. */
  fault: ((operation: string) => Fault | undefined) | undefined;
  close(): Promise<void>;
}

export async function startS3Proxy(target: string): Promise<S3Proxy> {
  const { hostname, port } = new URL(target);
  const server = createServer((incoming, outgoing) => {
    const operation = operationOf(incoming);
    proxy.seen.push(operation);
    proxy.lastPort = incoming.socket.remotePort;
    const fault = proxy.fault?.(operation);
    if (fault !== undefined && 'status' in fault) {
      refuse(incoming, outgoing, fault);
      return;
    }
    if (fault !== undefined && 'lostAs' in fault) {
      incoming.resume().on('end', () => outgoing.writeHead(200, { etag: fault.lostAs }).end());
      return;
    }
    const upstream = request(
      // The Host header is part of the signature and goes on as it came.
      { hostname, port, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (answer) => handOn(answer, outgoing, fault?.cutAfter),
    );
    upstream.on('error', () => outgoing.destroy());
    pipeline(incoming, upstream, () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  const proxy: S3Proxy = {
    endpoint: `http://127.0.0.1:${address.port}`,
    seen: [],
    lastPort: undefined,
    fault: undefined,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
  return proxy;
}

function handOn(answer: IncomingMessage, outgoing: ServerResponse, cutAfter: number | undefined): void {
  // The store has left meanwhile.
  if (outgoing.destroyed) {
    answer.destroy();
    return;
  }
  outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
  if (cutAfter === undefined) {
    pipeline(answer, outgoing, () => undefined);
    return;
  }
  let left = cutAfter;
  answer.on('data', (chunk: Buffer) => {
    outgoing.write(chunk.subarray(0, left));
    left -= chunk.length;
    if (left > 0) return;
    answer.destroy();
    outgoing.destroy();
  });
}

function refuse(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { status, code }: { readonly status: number; readonly code: string },
): void {
  incoming.resume().on('end', () => {
    outgoing.writeHead(status, { 'content-type': 'application/xml' });
    outgoing.end(
      incoming.method === 'HEAD'
        ? undefined
        : `<Error><Code>${code}</Code><Message>by the test</Message></Error>`,
    );
  });
}

function operationOf({ method, url = '/' }: IncomingMessage): string {
  const { pathname, searchParams } = new URL(url, 'http://proxy');
  const isObject = pathname.split('/').filter((one) => one !== '').length > 1;
  if (method === 'GET' && !isObject)
    return searchParams.has('uploads') ? 'ListMultipartUploads' : 'ListObjects';
  if (method === 'POST')
    return searchParams.has('uploads') ? 'CreateMultipartUpload' : 'CompleteMultipartUpload';
  if (method === 'DELETE') return searchParams.has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject';
  if (method === 'PUT') return searchParams.has('partNumber') ? 'UploadPart' : 'PutObject';
  return method === 'HEAD' ? 'HeadObject' : 'GetObject';
}
