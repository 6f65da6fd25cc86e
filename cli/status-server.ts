import type { Logger } from 'pino';
import { type Address, type RunningServer, type ServedCertificate, serve, urlOf } from '../process/server.ts';
import { answerStatus, type StatusSource } from '../process/status-routes.ts';

/** `/livez`, `/readyz` and `/metrics` of a program that answers nothing else. @throws Error when the address is taken. */
export async function serveStatus(
  source: StatusSource,
  address: Address,
  log: Logger,
  {
    said = 'the agent answers',
    certificate,
  }: { readonly said?: string; readonly certificate?: ServedCertificate | undefined } = {},
): Promise<RunningServer> {
  const server = await serve(
    (request, response) => {
      if (!answerStatus(request, response, source)) response.writeHead(404).end();
    },
    address,
    log,
    certificate,
  );
  log.info({ url: urlOf(server.address, certificate && 'https') }, said);
  return server;
}
