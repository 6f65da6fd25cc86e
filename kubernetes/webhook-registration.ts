import { isDeepStrictEqual } from 'node:util';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, orUndefined } from './client.ts';

/** Under which name the webhook is registered, and with which ClusterRole it goes. */
export interface RegistrationPlace {
  readonly name: string;
  readonly clusterRole: string;
}

/** What is done, for the log. */
export type Done = 'registered' | 'changed' | 'withdrawn' | 'kept';

export type Registry = 'mutatingwebhookconfigurations' | 'validatingwebhookconfigurations';
/** What both kinds know; `reinvocationPolicy` is for those that change objects. */
type Webhook = NonNullable<ObjectOf<'mutatingwebhookconfigurations'>['webhooks']>[number];

/**
 * Registers webhooks, as they are given here: what somebody changed by hand is put right. None takes the registration
 * away.
 *
 * @param registry of those that change objects, or of those that let pass or refuse.
 * @throws Error of the API.
 */
export async function registerWebhooks(
  kubernetes: Kubernetes,
  registry: Registry,
  { name, clusterRole }: RegistrationPlace,
  wanted: readonly Webhook[],
): Promise<Done> {
  const webhooks = [...wanted];
  try {
    const found = await orUndefined(() => kubernetes.read(registry, { name }));
    if (webhooks.length === 0) {
      if (found === undefined) return 'kept';
      await orUndefined(() => kubernetes.remove(registry, { name }));
      return 'withdrawn';
    }
    const ownerReferences = [await ownerOf(kubernetes, clusterRole)];
    if (found === undefined) {
      await kubernetes.create(registry, { metadata: { name, ownerReferences }, webhooks });
      return 'registered';
    }
    const { metadata, webhooks: before = [] } = found;
    if (areAsWanted(before, webhooks) && has(metadata?.ownerReferences, ownerReferences)) return 'kept';
    await kubernetes.replace(
      registry,
      { name },
      { ...found, metadata: { ...metadata, ownerReferences }, webhooks },
    );
    return 'changed';
  } catch (error) {
    throw apiProblem(`register in ${registry} ${name}`, error);
  }
}

/** With which the registration goes when the release does. */
async function ownerOf(kubernetes: Kubernetes, name: string) {
  const { metadata } = await kubernetes.read('clusterroles', { name });
  return { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', name, uid: metadata?.uid ?? '' };
}

/** Whether they are as they are to be, with nothing besides that would make a difference. */
function areAsWanted(found: readonly Webhook[], wanted: readonly Webhook[]): boolean {
  if (!has(found, wanted)) return false;
  return wanted.every((one, index) => isDeepStrictEqual(exactly(found[index]), exactly(one)));
}

/** What the API server adds nothing to, so that whatever else is there is somebody's, or is left from before. */
function exactly(webhook: Webhook | undefined) {
  return {
    caBundle: webhook?.clientConfig.caBundle ?? '',
    selectors: [webhook?.namespaceSelector, webhook?.objectSelector].map((selector) => ({
      labels: selector?.matchLabels ?? {},
      expressions: selector?.matchExpressions ?? [],
    })),
    conditions: webhook?.matchConditions ?? [],
  };
}

/** Whether everything that is wanted is there; the API server adds its defaults, and leaves out lists of nothing. */
function has(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted) && wanted.length === 0 && found === undefined) return true;
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
