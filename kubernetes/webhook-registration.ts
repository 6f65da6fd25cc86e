import type {
  V1MutatingWebhook,
  V1MutatingWebhookConfiguration,
  V1OwnerReference,
  V1ValidatingWebhook,
  V1ValidatingWebhookConfiguration,
} from '@kubernetes/client-node';
import { apiProblem, statusOf } from './client.ts';
import type { WebhookApi } from './webhook-api.ts';

/** Under which name the webhook is registered, and with which ClusterRole it goes. */
export interface RegistrationPlace {
  readonly name: string;
  readonly clusterRole: string;
}

/** What is done, for the log. */
export type Done = 'registered' | 'changed' | 'withdrawn' | 'kept';

/**
 * Registers webhooks that change objects, as they are given here: what somebody changed by hand is put right. None
 * takes the registration away.
 *
 * @throws Error of the API.
 */
export function registerMutating(
  { admission, rbac }: WebhookApi,
  place: RegistrationPlace,
  webhooks: readonly V1MutatingWebhook[],
): Promise<Done> {
  const { name } = place;
  return register(rbac, place, webhooks, {
    what: `MutatingWebhookConfiguration ${name}`,
    read: () => admission.readMutatingWebhookConfiguration({ name }),
    create: (body) => admission.createMutatingWebhookConfiguration({ body }),
    replace: (body) => admission.replaceMutatingWebhookConfiguration({ name, body }),
    remove: () => admission.deleteMutatingWebhookConfiguration({ name }),
  });
}

/** As {@link registerMutating}, for webhooks that let pass or refuse. @throws Error of the API. */
export function registerValidating(
  { admission, rbac }: WebhookApi,
  place: RegistrationPlace,
  webhooks: readonly V1ValidatingWebhook[],
): Promise<Done> {
  const { name } = place;
  return register(rbac, place, webhooks, {
    what: `ValidatingWebhookConfiguration ${name}`,
    read: () => admission.readValidatingWebhookConfiguration({ name }),
    create: (body) => admission.createValidatingWebhookConfiguration({ body }),
    replace: (body) => admission.replaceValidatingWebhookConfiguration({ name, body }),
    remove: () => admission.deleteValidatingWebhookConfiguration({ name }),
  });
}

type Configuration = V1MutatingWebhookConfiguration | V1ValidatingWebhookConfiguration;

interface Registered<Kind extends Configuration> {
  readonly what: string;
  readonly read: () => Promise<Kind>;
  readonly create: (
    body: Pick<Kind, 'metadata'> & { webhooks: NonNullable<Kind['webhooks']> },
  ) => Promise<unknown>;
  readonly replace: (body: Kind) => Promise<unknown>;
  readonly remove: () => Promise<unknown>;
}

async function register<Kind extends Configuration>(
  rbac: WebhookApi['rbac'],
  { name, clusterRole }: RegistrationPlace,
  wanted: readonly NonNullable<Kind['webhooks']>[number][],
  { what, read, create, replace, remove }: Registered<Kind>,
): Promise<Done> {
  try {
    const found = await orUndefined(read);
    if (wanted.length === 0) {
      if (found === undefined) return 'kept';
      await orUndefined(remove);
      return 'withdrawn';
    }
    const webhooks: NonNullable<Kind['webhooks']> = [...wanted];
    if (found === undefined) {
      await create({ metadata: { name, ownerReferences: [await ownerOf(rbac, clusterRole)] }, webhooks });
      return 'registered';
    }
    if (has(found.webhooks, webhooks)) return 'kept';
    found.webhooks = webhooks;
    await replace(found);
    return 'changed';
  } catch (error) {
    throw apiProblem(`register ${what}`, error);
  }
}

/** With which the registration goes when the release does. */
async function ownerOf(rbac: WebhookApi['rbac'], name: string): Promise<V1OwnerReference> {
  const { metadata } = await rbac.readClusterRole({ name });
  return { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', name, uid: metadata?.uid ?? '' };
}

async function orUndefined<Result>(ask: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

/** Whether everything that is wanted is there; the API server adds its defaults. */
function has(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted))
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((item, index) => has(found[index], item))
    );
  if (typeof wanted !== 'object' || wanted === null) return found === wanted;
  if (typeof found !== 'object' || found === null) return false;
  const there = new Map<string, unknown>(Object.entries(found));
  return Object.entries(wanted).every(([key, value]) => has(there.get(key), value));
}
