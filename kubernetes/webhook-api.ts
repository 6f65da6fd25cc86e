import {
  AdmissionregistrationV1Api,
  type CoordinationV1Api,
  type CoreV1Api,
  RbacAuthorizationV1Api,
} from '@kubernetes/client-node';
import { apiConfiguration, type Kubernetes } from './client.ts';

/** The parts of the Kubernetes API that the webhook speaks to by itself. */
export interface WebhookApi {
  readonly core: CoreV1Api;
  readonly coordination: CoordinationV1Api;
  readonly admission: AdmissionregistrationV1Api;
  readonly rbac: RbacAuthorizationV1Api;
}

/** Of the same cluster, on the same connection. */
export function webhookApi({ core, coordination, watch }: Kubernetes, product: string): WebhookApi {
  const configuration = apiConfiguration(watch.config, product);
  return {
    core,
    coordination,
    admission: new AdmissionregistrationV1Api(configuration),
    rbac: new RbacAuthorizationV1Api(configuration),
  };
}
