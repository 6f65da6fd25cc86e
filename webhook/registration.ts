import type { Config } from '../config/config.ts';
import { globExpression } from './glob.ts';

/** How API servers reach the webhook. */
export interface WebhookService {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
}

/** Paths of the webhook. */
export const PODS_PATH = '/pods';
export const CONFIG_PATH = '/config';

/** k8s.io/api/admissionregistration/v1, MutatingWebhook and ValidatingWebhook, as far as they are used. */
export interface Webhook {
  name: string;
  admissionReviewVersions: string[];
  clientConfig: {
    service: { namespace: string; name: string; path: string; port: number };
    caBundle?: string;
  };
  failurePolicy: string;
  timeoutSeconds: number;
  sideEffects: string;
  rules: {
    operations: string[];
    apiGroups: string[];
    apiVersions: string[];
    resources: string[];
    scope: string;
  }[];
  namespaceSelector: { matchExpressions: { key: string; operator: string; values: string[] }[] };
  matchConditions: { name: string; expression: string }[];
  reinvocationPolicy?: string;
}

export interface RegistrationOptions {
  readonly config: Config;
  readonly service: WebhookService;
  /** PEM */
  readonly authorities: string;
}

/** Whether Pods are to be looked at, and which: those for nodes that need rewriting, or all. */
export function podsWanted(config: Config, isNeeded: boolean): 'auto' | 'always' | undefined {
  const { enabled, fallback } = config;
  if (!enabled || fallback === 'never') return undefined;
  return fallback === 'always' || isNeeded ? fallback : undefined;
}

/** What API servers are to ask about Pods. Whatever goes wrong with it, Pods go on (`failurePolicy: Ignore`). */
export function podWebhooks(mode: 'auto' | 'always', options: RegistrationOptions): Webhook[] {
  const { config, service } = options;
  const common = {
    ...commonOf(PODS_PATH, options),
    sideEffects: 'NoneOnDryRun',
    namespaceSelector: { matchExpressions: [leftOut(config, service.namespace)] },
  };
  const namespaces = namespaceConditions(config);
  const pods: Webhook = {
    ...common,
    name: 'pods.weir.dev',
    rules: [rule(['CREATE'], 'pods'), rule(['UPDATE'], 'pods/ephemeralcontainers')],
    matchConditions: [...namespaces, NOT_STATIC],
    // Containers that others add after us are looked at too.
    reinvocationPolicy: 'IfNeeded',
  };
  if (mode === 'always') return [pods];
  const bindings: Webhook = {
    ...common,
    name: 'bindings.weir.dev',
    rules: [rule(['CREATE'], 'pods/binding')],
    matchConditions: namespaces,
    reinvocationPolicy: 'Never',
  };
  return [pods, bindings];
}

/** What API servers are to ask about edits of the one ConfigMap. */
export function configWebhook(
  configMap: { readonly namespace: string; readonly name: string },
  options: Omit<RegistrationOptions, 'config'>,
): Webhook {
  const { namespace, name } = configMap;
  return {
    ...commonOf(CONFIG_PATH, options),
    name: 'config.weir.dev',
    sideEffects: 'None',
    rules: [rule(['CREATE', 'UPDATE'], 'configmaps')],
    namespaceSelector: { matchExpressions: [{ key: NAME_LABEL, operator: 'In', values: [namespace] }] },
    matchConditions: [
      {
        name: 'the-configuration',
        expression: `has(object.metadata.name) && object.metadata.name == '${name}'`,
      },
    ],
  };
}

const NAME_LABEL = 'kubernetes.io/metadata.name';
const NOT_STATIC = {
  name: 'not-static',
  expression:
    "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)",
};

type Common = Pick<Webhook, 'admissionReviewVersions' | 'clientConfig' | 'failurePolicy' | 'timeoutSeconds'>;

function commonOf(path: string, { service, authorities }: Omit<RegistrationOptions, 'config'>): Common {
  const clientConfig: Webhook['clientConfig'] = { service: { ...service, path } };
  // Without one, the API server goes by its system's authorities.
  if (authorities !== '') clientConfig.caBundle = Buffer.from(authorities).toString('base64');
  return { admissionReviewVersions: ['v1'], clientConfig, failurePolicy: 'Ignore', timeoutSeconds: 2 };
}

function rule(operations: string[], resource: string): Webhook['rules'][number] {
  return { operations, apiGroups: [''], apiVersions: ['v1'], resources: [resource], scope: 'Namespaced' };
}

/** Plain names can be left out by the selector; the release itself always is, so that it starts without the webhook. */
function leftOut(config: Config, ownNamespace: string) {
  const names = config.excludeNamespaces.filter((pattern) => !isPattern(pattern));
  return { key: NAME_LABEL, operator: 'NotIn', values: [...new Set([ownNamespace, ...names])].toSorted() };
}

function namespaceConditions({ includeNamespaces, excludeNamespaces }: Config): Webhook['matchConditions'] {
  const patterns = excludeNamespaces.filter(isPattern);
  return [
    ...(includeNamespaces.includes('*')
      ? []
      : [{ name: 'included-namespaces', expression: matches(includeNamespaces) }]),
    ...(patterns.length === 0 ? [] : [{ name: 'excluded-namespaces', expression: `!${matches(patterns)}` }]),
  ];
}

/** In CEL. A list without patterns fits nothing: `^$` would be a namespace without a name. */
function matches(patterns: readonly string[]): string {
  const expression = patterns.length === 0 ? '^$' : patterns.map(globExpression).join('|');
  return `request.namespace.matches(r'${expression}')`;
}

function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}
