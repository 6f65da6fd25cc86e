import type { Logger } from 'pino';
import { type Address, type RunningServer, serve, urlOf } from '../process/server.ts';
import { answerStatus, type StatusSource } from '../process/status-routes.ts';

/** `/livez`, `/readyz` and `/metrics` of a program that answers nothing else. @throws Error when the address is taken. */
export async function serveStatus(
  source: StatusSource,
  address: Address,
  log: Logger,
  said = 'the agent answers',
): Promise<RunningServer> {
  const server = await serve(
    (request, response) => {
      if (!answerStatus(request, response, source)) response.writeHead(404).end();
    },
    address,
    log,
  );
  log.info({ url: urlOf(server.address) }, said);
  return server;
}
