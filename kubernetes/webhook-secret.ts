import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
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
}): ObjectWatch<'secrets'> {
  const { kubernetes, secret, log } = options;
  const { namespace, name } = secret;
  const fieldSelector = `metadata.name=${name}`;
  return new ObjectWatch<'secrets'>({
    kubernetes,
    what: `Secret ${namespace}/${name}`,
    collection: 'secrets',
    selection: { namespace, fieldSelector },
    changed: ([found]) => options.changed(textOf(found)),
    log,
  });
}

/** @throws Error of the API. */
export async function readSecret(kubernetes: Kubernetes, secret: ObjectName): Promise<SecretText> {
  try {
    return textOf(await kubernetes.read('secrets', secret));
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
  kubernetes: Kubernetes,
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
      await kubernetes.create('secrets', { metadata: { name }, data: encoded }, namespace);
      return true;
    }
    const found = await kubernetes.read('secrets', secret);
    // Labels and whatever else the chart gave it stay.
    found.data = encoded;
    if (found.metadata !== undefined) found.metadata.resourceVersion = version;
    await kubernetes.replace('secrets', secret, found);
    return true;
  } catch (error) {
    if (statusOf(error) === 409) return false;
    throw apiProblem(`write Secret ${namespace}/${name}`, error);
  }
}

function textOf(secret: ObjectOf<'secrets'> | undefined): SecretText {
  const data = Object.entries(secret?.data ?? {}).map(([key, text]): [string, string] => [
    key,
    Buffer.from(text, 'base64').toString('utf8'),
  ]);
  return { data: Object.fromEntries(data), version: secret?.metadata?.resourceVersion ?? '' };
}
