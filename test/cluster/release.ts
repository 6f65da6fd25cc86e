// weir as an operator has it: the chart, installed by Helm, with the image that the Dockerfile makes.

import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { buildImage } from '../image/image.ts';
import type { Cluster } from './cluster.ts';
import { eventually } from './patience.ts';

export const CHART = join(import.meta.dirname, '..', '..', 'charts', 'weir');
const CA_FILE = 'test.pem';

export const NAMESPACE = 'weir-system';
export const CERTS_DIR = '/etc/containerd/certs.d';

export interface RegistryRequest {
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly cache: string;
}

const lineSchema = z.object({
  method: z.string(),
  url: z.string(),
  status: z.number(),
  cache: z.string(),
  msg: z.literal('answered'),
});

/** The release `weir` in {@link NAMESPACE}. */
export class Release {
  readonly #cluster: Cluster;
  /** The file of the values. */
  readonly values: string;

  private constructor(cluster: Cluster, values: string) {
    this.#cluster = cluster;
    this.values = values;
  }

  /**
   * Publishes the image, and writes values with these upstreams, whose certificates the registry trusts. Without
   * any the chart's own are meant, and the values have nothing but what it takes to trust them.
   */
  static async prepare(cluster: Cluster, upstreams?: readonly string[]): Promise<Release> {
    await cluster.pushImage(`docker.io/library/weir:${manifest.version}`, await buildImage());
    const values = join(cluster.directory, 'values.json');
    const s3 = cluster.s3;
    await writeFile(
      values,
      JSON.stringify({
        ...(upstreams === undefined
          ? { registry: { extraEnv: [{ name: 'NODE_EXTRA_CA_CERTS', value: `/etc/weir/ca/${CA_FILE}` }] } }
          : { config: { upstreams: Object.fromEntries(upstreams.map((host) => [host, { ca: CA_FILE }])) } }),
        ca: { bundles: { [CA_FILE]: cluster.ca } },
        ...(s3 && {
          // The keys of the chart that weir replaces.
          s3: { region: s3.region, bucket: s3.bucket, regionEndpoint: s3.endpoint },
          s3Credentials: { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey },
        }),
      }),
    );
    return new Release(cluster, values);
  }

  async install(...more: readonly string[]): Promise<string> {
    return this.#helm(
      'upgrade',
      '--install',
      'weir',
      CHART,
      '--create-namespace',
      '--values',
      this.values,
      '--wait',
      ...more,
    );
  }

  test(): Promise<string> {
    return this.#helm('test', 'weir', '--logs');
  }

  uninstall(): Promise<string> {
    return this.#helm('uninstall', 'weir', '--wait');
  }

  kubectl(...args: readonly string[]): Promise<string> {
    return this.#cluster.kubectl('--namespace', NAMESPACE, ...args);
  }

  /** The configuration in the live ConfigMap. */
  config(): Promise<string> {
    return this.kubectl('get', 'configmap', 'weir', '--output', 'go-template={{index .data "config.yaml"}}');
  }

  /** Edits the live ConfigMap, as `kubectl edit` does. */
  async edit(text: string): Promise<void> {
    const patch = JSON.stringify({ data: { 'config.yaml': text } });
    await this.kubectl('patch', 'configmap', 'weir', '--type', 'merge', '--patch', patch);
  }

  /** What the replicas that run were asked for below `/v2/`, in no order. */
  async requests(): Promise<readonly RegistryRequest[]> {
    const text = await this.kubectl(
      'logs',
      '--selector',
      'app.kubernetes.io/component=registry',
      '--tail=-1',
    );
    return text.split('\n').flatMap((line) => {
      const found = line.startsWith('{') ? lineSchema.safeParse(JSON.parse(line)).data : undefined;
      return found === undefined ? [] : [found];
    });
  }

  /** One of the metrics of a node's agent. */
  async agentMetric(node: string, metric: string): Promise<number> {
    const address = this.#cluster.nodes.find(({ name }) => name === node)?.address ?? '';
    const script = `fetch('http://${address}:5701/metrics').then(async (a) => console.log(await a.text()))`;
    const text = await this.#cluster.exec('control-plane', 'node', '--eval', script);
    const line = text.split('\n').find((one) => one.startsWith(`${metric} `));
    if (line === undefined) throw new Error(`the agent of ${node} exports no ${metric}`);
    return Number(line.slice(metric.length));
  }

  /** Every file below the node's containerd directory, with its mode, owner and content. */
  async nodeFiles(node: string): Promise<string> {
    const list = `cd /etc/containerd && find . -printf '%p %y %m %U:%G %l\\n' | sort && find . -type f -exec sha256sum {} + | sort`;
    return this.#cluster.exec(node, 'sh', '-c', list);
  }

  /** Why a node is not `configured`, as its annotation has it. */
  reason(node: string): Promise<string> {
    return this.annotation(node, 'mirror-reason');
  }

  /** One of weir's annotations of a node; empty when it has none. */
  annotation(node: string, name: string): Promise<string> {
    return this.#cluster.kubectl(
      'get',
      'node',
      node,
      `--output=jsonpath={.metadata.annotations.weir\\.dev/${name}}`,
    );
  }

  /** Waits until these nodes, or all of them, are `configured`. */
  async configured(...nodes: readonly string[]): Promise<void> {
    const wanted = nodes.length > 0 ? nodes : this.#cluster.nodes.map(({ name }) => name);
    for (const name of wanted)
      await eventually(`${name} is configured`, async () => (await this.label(name)) === 'configured');
  }

  /** What a node tells containerd of a registry host; empty when it has no file for it. */
  async hostsFile(node: string, host: string): Promise<string> {
    const file = this.#cluster.path(node, `${CERTS_DIR}/${host}/hosts.toml`);
    return existsSync(file) ? readFile(file, 'utf8') : '';
  }

  /** The status of a node's door for the first request of a pull. @throws Error when nothing listens there. */
  async doorAnswer(node: string): Promise<number> {
    const script = `fetch('http://127.0.0.1:5700/v2/').then(({ status }) => console.log(status))`;
    return Number(await this.#cluster.exec(node, 'node', '--eval', script));
  }

  /** The agent's Pod on a node. */
  async agentPod(node: string): Promise<string> {
    const selector = '--selector=app.kubernetes.io/component=agent';
    const onNode = `--field-selector=spec.nodeName=${node}`;
    return (await this.kubectl('get', 'pods', selector, onNode, '--output=name')).trim();
  }

  async label(node: string): Promise<string> {
    return this.#cluster.kubectl(
      'get',
      'node',
      node,
      '--output',
      'go-template={{index .metadata.labels "weir.dev/mirror"}}',
    );
  }

  #helm(...args: readonly string[]): Promise<string> {
    return this.#cluster.helm(...args, '--namespace', NAMESPACE, '--timeout', '120s');
  }
}

/** A configuration with these upstreams. */
export function configFor(upstreams: readonly string[], more = ''): string {
  return `${more}upstreams:\n${upstreams.map((host) => `  ${host}: { ca: ${CA_FILE} }\n`).join('')}`;
}

/** Stops (`STOP`), continues (`CONT`) or kills the processes of the registry on every node. */
export async function signalRegistries(cluster: Cluster, signal: 'STOP' | 'CONT' | 'KILL'): Promise<void> {
  for (const { name } of cluster.nodes)
    await cluster.exec(name, 'sh', '-c', `pkill -${signal} -f '[m]ain.js registry' || true`);
}
