import type { Logger } from 'pino';
import type { Kubernetes, ObjectOf } from './api.ts';
import type { ObjectName } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** The key of the ConfigMap that holds the configuration. */
export const CONFIG_KEY = 'config.yaml';

/** What is in the ConfigMap, or why there is nothing to read. */
export type ConfigText =
  | { readonly kind: 'text'; readonly text: string; readonly origin: string }
  | { readonly kind: 'missing'; readonly reason: string };

/** Tells of the text of the configuration in a ConfigMap, and of every text after it. */
export function watchConfigText(options: {
  readonly kubernetes: Kubernetes;
  readonly configMap: ObjectName;
  readonly changed: (text: ConfigText) => void;
  readonly log: Logger;
}): ObjectWatch<'configmaps'> {
  const { kubernetes, configMap, log } = options;
  const { namespace, name } = configMap;
  const fieldSelector = `metadata.name=${name}`;
  return new ObjectWatch<'configmaps'>({
    kubernetes,
    what: `ConfigMap ${namespace}/${name}`,
    collection: 'configmaps',
    selection: { namespace, fieldSelector },
    changed: ([found]) => options.changed(textIn(found, configMap)),
    log,
  });
}

/** The one key that a ConfigMap has will do, whatever its name. */
export function textIn(
  found: ObjectOf<'configmaps'> | undefined,
  { namespace, name }: ObjectName,
): ConfigText {
  const place = `ConfigMap ${namespace}/${name}`;
  if (found === undefined) return { kind: 'missing', reason: `${place} is not there` };
  const data = found.data ?? {};
  const keys = Object.keys(data);
  const key = keys.length === 1 ? keys[0] : CONFIG_KEY;
  const text = key === undefined ? undefined : data[key];
  if (text !== undefined && key !== undefined) return { kind: 'text', text, origin: `${place}, ${key}` };
  // The API puts there what is not UTF-8.
  const why =
    found.binaryData?.[CONFIG_KEY] === undefined ? '' : ' in data: the one in binaryData is no text';
  return { kind: 'missing', reason: `${place} has no key ${CONFIG_KEY}${why}` };
}
