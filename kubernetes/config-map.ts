import type { V1ConfigMap } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import type { Kubernetes, ObjectName } from './client.ts';
import { ObjectWatch } from './object-watch.ts';

/** The key of the ConfigMap that holds the configuration. */
export const CONFIG_KEY = 'config.yaml';

/** What is in the ConfigMap, or why there is nothing to read. */
export type ConfigText =
  | { readonly kind: 'text'; readonly text: string; readonly origin: string }
  | { readonly kind: 'missing'; readonly reason: string };

/** The text of the configuration in a ConfigMap, and every text after it. */
export class ConfigMapWatch {
  readonly #watch: ObjectWatch<V1ConfigMap>;
  #text: ConfigText | undefined;

  constructor(options: {
    readonly kubernetes: Kubernetes;
    readonly configMap: ObjectName;
    readonly changed: (text: ConfigText) => void;
    readonly log: Logger;
  }) {
    const { kubernetes, configMap, log } = options;
    const { namespace, name } = configMap;
    const fieldSelector = `metadata.name=${name}`;
    this.#watch = new ObjectWatch<V1ConfigMap>({
      kubernetes,
      what: `ConfigMap ${namespace}/${name}`,
      path: `/api/v1/namespaces/${namespace}/configmaps`,
      list: () => kubernetes.core.listNamespacedConfigMap({ namespace, fieldSelector }),
      fieldSelector,
      changed: ([found]) => {
        this.#text = textIn(found, configMap);
        options.changed(this.#text);
      },
      log,
    });
  }

  /** What is there; waits for the API server's first answer. */
  async first(): Promise<ConfigText> {
    await this.#watch.known;
    if (this.#text === undefined) throw new Error('the watch says nothing of what it found');
    return this.#text;
  }

  get problem(): Error | undefined {
    return this.#watch.problem;
  }

  close(): Promise<void> {
    return this.#watch.close();
  }
}

/** The one key that a ConfigMap has will do, whatever its name. */
export function textIn(found: V1ConfigMap | undefined, { namespace, name }: ObjectName): ConfigText {
  const place = `ConfigMap ${namespace}/${name}`;
  if (found === undefined) return { kind: 'missing', reason: `${place} is not there` };
  const data = found.data ?? {};
  const keys = Object.keys(data);
  const key = keys.length === 1 ? keys[0] : CONFIG_KEY;
  const text = key === undefined ? undefined : data[key];
  return text === undefined || key === undefined
    ? { kind: 'missing', reason: `${place} has no key ${CONFIG_KEY}` }
    : { kind: 'text', text, origin: `${place}, ${key}` };
}
