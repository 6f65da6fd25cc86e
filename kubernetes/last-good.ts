import { PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import { type ConfigVersion, readVersion } from '../config/version.ts';
import { apiProblem, type Kubernetes, type ObjectName, statusOf } from './client.ts';
import { CONFIG_KEY, textIn } from './config-map.ts';

/** The ConfigMap beside the configuration's own in which the last good one is kept. */
export function lastGoodName({ namespace, name }: ObjectName): ObjectName {
  return { namespace, name: `${name}-last-good` };
}

/** The configuration that was in force last; `undefined` when none was kept. @throws Error when it cannot be read. */
export async function readLastGood(
  { core }: Kubernetes,
  configMap: ObjectName,
): Promise<ConfigVersion | undefined> {
  const place = lastGoodName(configMap);
  try {
    const found = textIn(await core.readNamespacedConfigMap(place), place);
    return found.kind === 'text' ? readVersion(found.text, found.origin) : undefined;
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw apiProblem(`read ConfigMap ${place.namespace}/${place.name}`, error);
  }
}

/** @throws Error when the API server does not take it; the ConfigMap itself is the chart's to make. */
export async function keepLastGood({ core }: Kubernetes, configMap: ObjectName, text: string): Promise<void> {
  const place = lastGoodName(configMap);
  const body = { data: { [CONFIG_KEY]: text } };
  try {
    await core.patchNamespacedConfigMap(
      { ...place, body },
      setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
    );
  } catch (error) {
    throw apiProblem(`keep the last good configuration in ConfigMap ${place.namespace}/${place.name}`, error);
  }
}
