import {
  AdmissionregistrationV1Api,
  type CoordinationV1Api,
  type CoreV1Api,
  createConfiguration,
  RbacAuthorizationV1Api,
  type RequestContext,
  type ResponseContext,
  ServerConfiguration,
} from '@kubernetes/client-node';
import type { Kubernetes } from './client.ts';

/** The parts of the Kubernetes API that the webhook speaks to by itself. */
export interface WebhookApi {
  readonly core: CoreV1Api;
  readonly coordination: CoordinationV1Api;
  readonly admission: AdmissionregistrationV1Api;
  readonly rbac: RbacAuthorizationV1Api;
}

/** An answer to a single request. */
const ANSWER_MS = 10_000;

/** Of the same cluster, on the same connection. */
export function webhookApi({ core, coordination, watch }: Kubernetes, product: string): WebhookApi {
  const { config } = watch;
  const configuration = createConfiguration({
    baseServer: new ServerConfiguration(config.getCurrentCluster()?.server ?? '', {}),
    authMethods: { default: config },
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
  return {
    core,
    coordination,
    admission: new AdmissionregistrationV1Api(configuration),
    rbac: new RbacAuthorizationV1Api(configuration),
  };
}
