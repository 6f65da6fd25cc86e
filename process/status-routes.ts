import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';

export interface Readiness {
  readonly ready: boolean;
  /** One line a thing, for the person who reads it. */
  readonly detail: readonly string[];
}

export interface StatusSource {
  readonly metrics: Registry;
  readiness(): Readiness;
}

/** Answers `/livez`, `/readyz` and `/metrics`; `false` when the request is for something else. */
export function answerStatus(
  request: IncomingMessage,
  response: ServerResponse,
  source: StatusSource,
): boolean {
  const path = request.url?.split('?', 1)[0];
  if (path === '/livez') {
    answer(response, 200, 'ok\n');
    return true;
  }
  if (path === '/readyz') {
    const { ready, detail } = source.readiness();
    answer(response, ready ? 200 : 503, [ready ? 'ok' : 'not ready', ...detail, ''].join('\n'));
    return true;
  }
  if (path === '/metrics') {
    source.metrics.metrics().then(
      (text) => answer(response, 200, text, source.metrics.contentType),
      (error: unknown) => answer(response, 500, `${String(error)}\n`),
    );
    return true;
  }
  return false;
}

function answer(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
}
