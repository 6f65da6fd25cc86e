import { selectorText } from './agents.ts';
import { apiProblem, type Kubernetes, type ObjectName, statusOf } from './client.ts';
import type { WebhookApi } from './webhook-api.ts';

/** What selects the Pods of the webhook's Deployment; `undefined` when there is none. @throws Error of the API. */
export async function webhookSelector(
  { apps }: Kubernetes,
  deployment: ObjectName,
): Promise<string | undefined> {
  return orUndefined(`read Deployment ${deployment.namespace}/${deployment.name}`, async () => {
    const { spec } = await apps.readNamespacedDeployment(deployment);
    return selectorText(spec?.selector ?? {});
  });
}

/** Deletes the Deployment; its Pods are told to stop while it is still there. @throws Error of the API. */
export async function deleteWebhook({ apps }: Kubernetes, deployment: ObjectName): Promise<void> {
  await orUndefined(`delete Deployment ${deployment.namespace}/${deployment.name}`, () =>
    apps.deleteNamespacedDeployment({ ...deployment, propagationPolicy: 'Foreground' }),
  );
}

/** Takes away what the webhook has registered, as it is called. @throws Error of the API. */
export async function withdrawRegistrations({ admission }: WebhookApi, name: string): Promise<void> {
  await orUndefined(`delete MutatingWebhookConfiguration ${name}`, () =>
    admission.deleteMutatingWebhookConfiguration({ name }),
  );
  await orUndefined(`delete ValidatingWebhookConfiguration ${name}`, () =>
    admission.deleteValidatingWebhookConfiguration({ name }),
  );
}

/** What is not there is as good as deleted. @throws Error of the API. */
async function orUndefined<Result>(what: string, ask: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(what, error);
  }
}
