import { type ConfigVersion, readVersion } from '../config/version.ts';
import type { Kubernetes } from './api.ts';
import { apiProblem, type ObjectName, statusOf } from './client.ts';
import { CONFIG_KEY, textIn } from './config-map.ts';

/** The ConfigMap beside the configuration's own in which the last good one is kept. */
export function lastGoodName({ namespace, name }: ObjectName): ObjectName {
  return { namespace, name: `${name}-last-good` };
}

/** The configuration that was in force last; `undefined` when none was kept. @throws Error when it cannot be read. */
export async function readLastGood(
  kubernetes: Kubernetes,
  configMap: ObjectName,
): Promise<ConfigVersion | undefined> {
  const place = lastGoodName(configMap);
  try {
    const found = textIn(await kubernetes.read('configmaps', place), place);
    return found.kind === 'text' ? readVersion(found.text, found.origin) : undefined;
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read ConfigMap ${place.namespace}/${place.name}`, error);
  }
}

/** @throws Error when the API server does not take it; the ConfigMap itself is the chart's to make. */
export async function keepLastGood(
  kubernetes: Kubernetes,
  configMap: ObjectName,
  text: string,
): Promise<void> {
  const place = lastGoodName(configMap);
  try {
    await kubernetes.patch('configmaps', place, { merge: { data: { [CONFIG_KEY]: text } } });
  } catch (error) {
    throw apiProblem(`keep the last good configuration in ConfigMap ${place.namespace}/${place.name}`, error);
  }
}
