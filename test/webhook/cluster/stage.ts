// A real API server with the real webhook registered in it, in front of a real registry and its upstream. Nodes are
// objects only; a test binds Pods to them as a scheduler does. The webhook has an account with just the rights that it
// needs.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import {
  AdmissionregistrationV1Api,
  CoreV1Api,
  KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  type V1Pod,
  type V1PodSpec,
} from '@kubernetes/client-node';
import { OneConnection } from '../../../kubernetes/one-connection.ts';
import { type ApiServer, startApiServer } from '../../chart/api-server.ts';
import { freePort } from '../../containerd/port.ts';
import { makeImage } from '../../support/image.ts';
import { type Mirror, startMirror } from '../../support/mirror.ts';
import { UpstreamRegistry } from '../../support/upstream-registry.ts';
import { type Child, start } from '../../tools/child.ts';
import { makeScratch, removeScratch } from '../../tools/scratch.ts';
import { ApiFront } from './api-front.ts';
import { Front } from './front.ts';

export const NAMESPACE = 'weir';
/** Of the ClusterRole, the registration, the Service, the Secret and the Lease. */
export const NAME = 'weir-webhook';
/** Under which a node's runtime would find the registry. */
export const DOOR = '127.0.0.1:5700';
const HOSTS = ['docker.io', 'quay.io'] as const;
/** Is there longer than an API server takes to hear of a registration. */
const PATIENCE_MS = 20_000;

/** Waits until it is so. @throws what it threw last, or that it never was. */
export async function eventually(
  what: string,
  look: () => Promise<boolean>,
  patience = PATIENCE_MS,
): Promise<void> {
  const deadline = performance.now() + patience;
  for (;;) {
    let problem: unknown;
    const isSo = await look().catch((error: unknown) => {
      problem = error;
      return false;
    });
    if (isSo) return;
    if (performance.now() > deadline) throw new Error(`never: ${what}`, { cause: problem });
    await pause(100);
  }
}

/** What a Pod has besides one container. */
export interface MorePod {
  readonly namespace?: string;
  readonly annotations?: Record<string, string>;
  readonly spec?: Partial<V1PodSpec>;
}

export class Stage {
  readonly api: ApiServer;
  readonly core: CoreV1Api;
  readonly admission: AdmissionregistrationV1Api;
  readonly upstream: UpstreamRegistry;
  readonly mirror: Mirror;
  readonly front: Front;
  /** Between the webhook and the API server, where a test wants one. */
  readonly apiFront: ApiFront | undefined;
  /** Of every node, where its agent would tell how it is. */
  readonly agentPort: number;
  readonly #scratch: string;
  readonly #kubeconfig: string;
  readonly #port: number;
  readonly #admin = new OneConnection();
  readonly #started: Child[] = [];
  #count = 0;

  private constructor(parts: {
    api: ApiServer;
    upstream: UpstreamRegistry;
    mirror: Mirror;
    front: Front;
    apiFront: ApiFront | undefined;
    scratch: string;
    port: number;
    agentPort: number;
  }) {
    this.api = parts.api;
    this.upstream = parts.upstream;
    this.mirror = parts.mirror;
    this.front = parts.front;
    this.apiFront = parts.apiFront;
    this.#scratch = parts.scratch;
    this.#port = parts.port;
    this.agentPort = parts.agentPort;
    this.#kubeconfig = join(parts.scratch, 'webhook-kubeconfig.json');
    this.#admin.loadFromFile(this.api.kubeconfig);
    this.core = this.#admin.makeApiClient(CoreV1Api);
    this.admission = this.#admin.makeApiClient(AdmissionregistrationV1Api);
  }

  static async open({ hasApiFront = false } = {}): Promise<Stage> {
    const scratch = await makeScratch();
    const api = await startApiServer(scratch);
    const upstream = await UpstreamRegistry.start();
    upstream.push('library/app', '1', await makeImage([{ hello: 'one' }]));
    const mirror = await startMirror(upstreamsAt(upstream.url));
    const front = await Front.start(mirror.url);
    const apiFront = hasApiFront ? await ApiFront.start(serverIn(api.kubeconfig)) : undefined;
    const ports = { port: await freePort(), agentPort: await freePort() };
    const stage = new Stage({ api, upstream, mirror, front, apiFront, scratch, ...ports });
    await stage.#furnish();
    return stage;
  }

  async close(): Promise<void> {
    for (const webhook of this.#started) await webhook.stop('SIGKILL');
    await this.apiFront?.close();
    await this.front.close();
    await this.mirror.close();
    await this.upstream.stop();
    await this.api.stop();
    await removeScratch(this.#scratch);
  }

  /** A replica of the webhook, which is ready. */
  async startWebhook(extra: Readonly<Record<string, string>> = {}, port = this.#port): Promise<Child> {
    const flags = {
      configMap: `${NAMESPACE}/weir`,
      listen: `127.0.0.1:${port}`,
      status: '127.0.0.1:0',
      registry: this.front.url,
      service: `${NAMESPACE}/${NAME}`,
      servicePort: String(this.#port),
      clusterRole: NAME,
      secret: NAME,
      lease: NAME,
      rewriteTo: DOOR,
      agentPort: String(this.agentPort),
      ...extra,
    };
    const program = join(import.meta.dirname, 'program.ts');
    const webhook = await start(process.execPath, [program, JSON.stringify(flags)], {
      env: { ...process.env, KUBECONFIG: this.#kubeconfig },
      ready: (child) => child.line(/the webhook answers/),
    });
    this.#started.push(webhook);
    return webhook;
  }

  /** Puts these lines beside the upstreams of the configuration. */
  async configure(lines: string): Promise<void> {
    const patch = { data: { 'config.yaml': `${upstreamsAt(this.upstream.url)}\n${lines}\n` } };
    await this.core.patchNamespacedConfigMap({ namespace: NAMESPACE, name: 'weir', body: patch }, MERGE);
  }

  /** A node as an agent would label it. */
  async makeNode(
    name: string,
    states: Readonly<Record<string, string>>,
    options: { runtime?: string; images?: readonly string[]; address?: string } = {},
  ): Promise<void> {
    const isFallback = Object.values(states).some((state) => state !== 'configured');
    const labels = {
      'kubernetes.io/hostname': `${name}.host`,
      ...(Object.keys(states).length === 0
        ? {}
        : { 'weir.dev/mirror': isFallback ? 'fallback' : 'configured' }),
    };
    const annotations = { 'weir.dev/upstreams': JSON.stringify(states), 'weir.dev/door': 'open' };
    await this.core.createNode({ body: { metadata: { name, labels, annotations } } });
    const status = {
      nodeInfo: { containerRuntimeVersion: options.runtime ?? 'containerd://2.3.7' },
      addresses: options.address === undefined ? [] : [{ type: 'InternalIP', address: options.address }],
      images: (options.images ?? []).map((image) => ({ names: [image] })),
    };
    await this.core.patchNodeStatus({ name, body: { status } }, MERGE);
  }

  async makeNamespace(name: string, annotations: Readonly<Record<string, string>> = {}): Promise<void> {
    const { core } = this;
    await core.createNamespace({ body: { metadata: { name, annotations } } });
    await core.createNamespacedServiceAccount({ namespace: name, body: { metadata: { name: 'default' } } });
  }

  /** Makes a Pod of this image, and gives its name. */
  async makePod(image: string, more: MorePod = {}): Promise<V1Pod> {
    const { namespace = 'default', annotations = {}, spec = {} } = more;
    const name = `pod-${++this.#count}`;
    const body: V1Pod = {
      metadata: { name, annotations },
      spec: { automountServiceAccountToken: false, containers: [{ name: 'app', image }], ...spec },
    };
    return this.core.createNamespacedPod({ namespace, body });
  }

  /** Binds it, as a scheduler does, and gives the Pod as the kubelet would see it first. */
  async bind(pod: V1Pod, node: string, options: { dryRun?: boolean } = {}): Promise<V1Pod> {
    await this.bindOnly(pod, node, options);
    return this.read(pod);
  }

  async read({ metadata }: V1Pod): Promise<V1Pod> {
    const { name = '', namespace = '' } = metadata ?? {};
    return this.core.readNamespacedPod({ name, namespace });
  }

  async bindOnly({ metadata }: V1Pod, node: string, { dryRun = false } = {}): Promise<void> {
    const { name = '', namespace = '', uid = '' } = metadata ?? {};
    const body = {
      metadata: { name, namespace, uid },
      target: { apiVersion: 'v1', kind: 'Node', name: node },
    };
    const { core } = this;
    // The client takes the answer, a Status, for a Binding.
    await core.createNamespacedPodBinding({ name, namespace, body, ...(dryRun ? { dryRun: 'All' } : {}) });
  }

  /** The image that a new Pod has once it is bound to this node. */
  async imageOn(node: string, image: string): Promise<string | undefined> {
    return imageOf(await this.bind(await this.makePod(image), node));
  }

  async #furnish(): Promise<void> {
    const { core } = this;
    await this.makeNamespace(NAMESPACE);
    await core.createNamespacedServiceAccount({
      namespace: 'default',
      body: { metadata: { name: 'default' } },
    });
    await core.createNamespacedConfigMap({
      namespace: NAMESPACE,
      body: { metadata: { name: 'weir' }, data: { 'config.yaml': upstreamsAt(this.upstream.url) } },
    });
    const rules = join(import.meta.dirname, 'rights.yaml');
    await this.api.kubectl('apply', '--filename', rules);
    // The API server goes to this name with the port of the registration.
    const spec = { type: 'ExternalName', externalName: 'localhost' };
    await core.createNamespacedService({ namespace: NAMESPACE, body: { metadata: { name: NAME }, spec } });
    const account = { namespace: NAMESPACE, name: NAME };
    const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { audiences: [] } };
    const { status } = await core.createNamespacedServiceAccountToken({ ...account, body: request });
    const config = {
      clusters: [
        {
          name: 'test',
          cluster: {
            server: this.apiFront?.url ?? serverIn(this.api.kubeconfig),
            'insecure-skip-tls-verify': true,
          },
        },
      ],
      users: [{ name: 'test', user: { token: status?.token } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
      'current-context': 'test',
    };
    await writeFile(this.#kubeconfig, JSON.stringify(config));
  }
}

export function imageOf({ spec }: V1Pod): string | undefined {
  return spec?.containers[0]?.image;
}

function serverIn(kubeconfig: string): string {
  const config = new KubeConfig();
  config.loadFromFile(kubeconfig);
  return config.getCurrentCluster()?.server ?? '';
}

const MERGE = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);

function upstreamsAt(url: string): string {
  return `upstreams:\n${HOSTS.map((host) => `  ${host}: { endpoint: "${url}" }`).join('\n')}`;
}
