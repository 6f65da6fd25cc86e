import { ApiException } from '@kubernetes/client-node';
import { Kubernetes } from './api.ts';
import { OneConnection } from './one-connection.ts';

/** As the client calls the cluster that it makes up when it knows of none. */
const NO_CONTEXT = 'loaded-context';

/** An object's place: `NAMESPACE/NAME`. */
export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/**
 * The cluster that the environment names: `KUBECONFIG`, `~/.kube/config`, or the Pod's service account.
 *
 * @param quietMs after so many milliseconds without a byte a watch is taken for dead.
 * @throws Error when there is none.
 */
export function connectKubernetes(product: string, quietMs?: number): Kubernetes {
  const config = new OneConnection();
  config.loadFromDefault();
  // What it takes without any is a port of this machine.
  if (config.getCurrentCluster() === null || config.getCurrentContext() === NO_CONTEXT)
    throw new Error('no cluster is known: run in a Pod with a service account, or set KUBECONFIG');
  return new Kubernetes(config, { product, ...(quietMs === undefined ? {} : { quietMs }) });
}

/** The HTTP status of a refused request; `undefined` when no answer came at all. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof ApiException ? error.code : undefined;
}

/** What is asked for, or `undefined` where it is not there. @throws whatever else went wrong. */
export async function orUndefined<Result>(ask: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

/** One line for a log: the client's own messages repeat whole bodies and headers. */
export function apiProblem(attempt: string, error: unknown): Error {
  if (!(error instanceof ApiException)) return new Error(`cannot ${attempt}`, { cause: error });
  const said = messageIn(error.body);
  const hint = error.code === 403 ? ' (is the RBAC of the release in place?)' : '';
  return new Error(`cannot ${attempt}: the API server answers ${error.code}${said}${hint}`);
}

function messageIn(body: unknown): string {
  try {
    const status: unknown = typeof body === 'string' ? JSON.parse(body) : body;
    if (typeof status === 'object' && status !== null && 'message' in status)
      return `: ${String(status.message).slice(0, 300)}`;
  } catch {
    // Not a Status object: an intermediary's page says nothing that the code does not.
  }
  return '';
}
