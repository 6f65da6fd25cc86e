import {
  ApiException,
  AppsV1Api,
  type Configuration,
  CoordinationV1Api,
  CoreV1Api,
  createConfiguration,
  DiscoveryV1Api,
  type KubeConfig,
  type RequestContext,
  type ResponseContext,
  ServerConfiguration,
  Watch,
} from '@kubernetes/client-node';
import { OneConnection } from './one-connection.ts';

/** An answer to a single request; what a watch waits for is another matter. */
const ANSWER_MS = 10_000;
/** A watch without a byte for so long is dead: twice the time between two of the API server's bookmarks. */
const QUIET_MS = 120_000;

/** As the client calls the cluster that it makes up when it knows of none. */
const NO_CONTEXT = 'loaded-context';

/** The parts of the Kubernetes API that weir speaks to. */
export interface Kubernetes {
  readonly core: CoreV1Api;
  readonly apps: AppsV1Api;
  readonly discovery: DiscoveryV1Api;
  readonly coordination: CoordinationV1Api;
  readonly watch: Watch;
}

/** An object's place: `NAMESPACE/NAME`. */
export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/**
 * The cluster that the environment names: `KUBECONFIG`, `~/.kube/config`, or the Pod's service account.
 *
 * @throws Error when there is none.
 */
export function connectKubernetes(product: string, quietMs = QUIET_MS): Kubernetes {
  const kubeConfig = new OneConnection();
  kubeConfig.loadFromDefault();
  const cluster = kubeConfig.getCurrentCluster();
  // What it takes without any is a port of this machine.
  if (cluster === null || kubeConfig.getCurrentContext() === NO_CONTEXT)
    throw new Error('no cluster is known: run in a Pod with a service account, or set KUBECONFIG');
  const configuration = apiConfiguration(kubeConfig, product);
  const watch = new Watch(kubeConfig);
  // Its own 30 s would have every watch of every node opened anew twice a minute.
  Object.assign(watch, { requestTimeoutMs: quietMs });
  return {
    core: new CoreV1Api(configuration),
    apps: new AppsV1Api(configuration),
    discovery: new DiscoveryV1Api(configuration),
    coordination: new CoordinationV1Api(configuration),
    watch,
  };
}

/** For each part of the API: whom to ask, as whom, and for how long. */
export function apiConfiguration(kubeConfig: KubeConfig, product: string): Configuration {
  return createConfiguration({
    baseServer: new ServerConfiguration(kubeConfig.getCurrentCluster()?.server ?? '', {}),
    authMethods: { default: kubeConfig },
    promiseMiddleware: [
      {
        pre: (context: RequestContext) => {
          context.setHeaderParam('user-agent', product);
          context.setSignal(AbortSignal.timeout(ANSWER_MS));
          return Promise.resolve(context);
        },
        post: (context: ResponseContext) => Promise.resolve(context),
      },
    ],
  });
}

/** The HTTP status of a refused request; `undefined` when no answer came at all. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof ApiException ? error.code : undefined;
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
