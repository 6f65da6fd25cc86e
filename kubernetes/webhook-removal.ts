import { selectorText } from './agents.ts';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName, orUndefined } from './client.ts';

/** What selects the Pods of the webhook's Deployment; `undefined` when there is none. @throws Error of the API. */
export async function webhookSelector(
  kubernetes: Kubernetes,
  deployment: ObjectName,
): Promise<string | undefined> {
  return ifThere(`read Deployment ${deployment.namespace}/${deployment.name}`, async () => {
    const { spec } = await kubernetes.read('deployments', deployment);
    return selectorText(spec?.selector ?? {});
  });
}

/** Deletes the Deployment; its Pods are told to stop while it is still there. @throws Error of the API. */
export async function deleteWebhook(kubernetes: Kubernetes, deployment: ObjectName): Promise<void> {
  await ifThere(`delete Deployment ${deployment.namespace}/${deployment.name}`, () =>
    kubernetes.remove('deployments', deployment, { propagationPolicy: 'Foreground' }),
  );
}

/** Takes away what the webhook has registered, as it is called. @throws Error of the API. */
export async function withdrawRegistrations(kubernetes: Kubernetes, name: string): Promise<void> {
  await ifThere(`delete MutatingWebhookConfiguration ${name}`, () =>
    kubernetes.remove('mutatingwebhookconfigurations', { name }),
  );
  await ifThere(`delete ValidatingWebhookConfiguration ${name}`, () =>
    kubernetes.remove('validatingwebhookconfigurations', { name }),
  );
}

/** What is not there is as good as deleted. @throws Error of the API. */
async function ifThere<Result>(what: string, ask: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await orUndefined(ask);
  } catch (error) {
    throw apiProblem(what, error);
  }
}
