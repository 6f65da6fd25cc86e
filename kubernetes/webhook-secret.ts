import type { V1Secret } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { apiProblem, type Kubernetes, type ObjectName, statusOf } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** What a Secret holds, as text, and which version of it this is. */
export interface SecretText {
  readonly data: Readonly<Record<string, string>>;
  /** Empty when there is no Secret. */
  readonly version: string;
}

/** Tells of a Secret whenever it changes. */
export function watchSecret(options: {
  readonly kubernetes: Kubernetes;
  readonly secret: ObjectName;
  readonly changed: (text: SecretText) => void;
  readonly log: Logger;
}): ObjectWatch<V1Secret> {
  const { kubernetes, secret, log } = options;
  const { namespace, name } = secret;
  const fieldSelector = `metadata.name=${name}`;
  return new ObjectWatch<V1Secret>({
    kubernetes,
    what: `Secret ${namespace}/${name}`,
    path: `/api/v1/namespaces/${namespace}/secrets`,
    list: () => kubernetes.core.listNamespacedSecret({ namespace, fieldSelector }),
    fieldSelector,
    changed: ([found]) => options.changed(textOf(found)),
    log,
  });
}

/** @throws Error of the API. */
export async function readSecret({ core }: Kubernetes, secret: ObjectName): Promise<SecretText> {
  try {
    return textOf(await core.readNamespacedSecret(secret));
  } catch (error) {
    if (statusOf(error) === 404) return textOf(undefined);
    throw apiProblem(`read Secret ${secret.namespace}/${secret.name}`, error);
  }
}

/**
 * Replaces what a Secret holds, if it still is that version; makes it where there is none.
 *
 * @returns `false` when somebody was faster. @throws Error of the API.
 */
export async function writeSecret(
  { core }: Kubernetes,
  secret: ObjectName,
  data: Readonly<Record<string, string>>,
  version: string,
): Promise<boolean> {
  const { namespace, name } = secret;
  const encoded = Object.fromEntries(
    Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')]),
  );
  try {
    if (version === '') {
      await core.createNamespacedSecret({ namespace, body: { metadata: { name }, data: encoded } });
      return true;
    }
    const found = await core.readNamespacedSecret(secret);
    // Labels and whatever else the chart gave it stay.
    found.data = encoded;
    if (found.metadata !== undefined) found.metadata.resourceVersion = version;
    await core.replaceNamespacedSecret({ ...secret, body: found });
    return true;
  } catch (error) {
    if (statusOf(error) === 409) return false;
    throw apiProblem(`write Secret ${namespace}/${name}`, error);
  }
}

function textOf(secret: V1Secret | undefined): SecretText {
  const data = Object.entries(secret?.data ?? {}).map(([key, text]): [string, string] => [
    key,
    Buffer.from(text, 'base64').toString('utf8'),
  ]);
  return { data: Object.fromEntries(data), version: secret?.metadata?.resourceVersion ?? '' };
}
