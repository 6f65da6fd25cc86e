// A cluster as the API server has it: the chart, installed, and nodes that nobody runs.

import { copyFile, readdir, readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import * as z from 'zod';
import { CHART, runTool } from '../charts/helm.ts';
import { type ApiServer, startApiServer } from '../test/chart/api-server.ts';
import { type Child, startChild } from './child.ts';

export const NAMESPACE = 'weir';
const AT_ONCE = 32;
/** As many as a kubelet tells of. */
const IMAGES = 50;
const LOOK_EVERY_MS = 200;

const kubeconfig = z.object({
  clusters: z.tuple([z.object({ cluster: z.object({ server: z.string() }) })]),
  users: z.tuple([z.object({ user: z.object({ token: z.string() }) })]),
});

export function nodeName(index: number): string {
  return `node-${index}`;
}

/** etcd, kube-apiserver, and in it a release of weir and many nodes. */
export class NodesCluster {
  readonly #api: ApiServer;
  readonly #scratch: string;
  readonly #server: string;
  readonly #token: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE, rejectUnauthorized: false });
  #restarted: Child | undefined;
  /** File for `KUBECONFIG` of the agents' own account. */
  readonly agentKubeconfig: string;
  /** Of kube-apiserver. */
  pid: number;

  private constructor(api: ApiServer, scratch: string, server: string, token: string, pid: number) {
    this.#api = api;
    this.#scratch = scratch;
    this.#server = server;
    this.#token = token;
    this.pid = pid;
    this.agentKubeconfig = join(scratch, 'agents.json');
  }

  static async start(scratch: string, nodes: number): Promise<NodesCluster> {
    const api = await startApiServer(scratch);
    try {
      const { clusters, users } = kubeconfig.parse(JSON.parse(await readFile(api.kubeconfig, 'utf8')));
      const { server } = clusters[0].cluster;
      const pid = await pidOf(`--secure-port=${new URL(server).port}`);
      const cluster = new NodesCluster(api, scratch, server, users[0].user.token, pid);
      await cluster.#fill(nodes);
      return cluster;
    } catch (error) {
      await api.stop();
      throw error;
    }
  }

  async #fill(nodes: number): Promise<void> {
    await this.#api.kubectl('create', 'namespace', NAMESPACE);
    const flags = ['--namespace', NAMESPACE, '--kubeconfig', this.#api.kubeconfig];
    await runTool('helm', 'install', 'weir', CHART, ...flags);
    const token = ['create', 'token', 'weir-agent', '--namespace', NAMESPACE, '--duration', '24h'];
    await copyFile(this.#api.kubeconfig, this.agentKubeconfig);
    const user = ['set-credentials', 'administrator', '--token', (await this.#api.kubectl(...token)).trim()];
    await this.#api.kubectl('--kubeconfig', this.agentKubeconfig, 'config', ...user);
    let next = 0;
    const make = async (): Promise<void> => {
      for (let index = next++; index < nodes; index = next++)
        await this.ask('POST', '/api/v1/nodes', nodeNumber(index));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, make));
  }

  /** Has the registry's Service lead to these addresses, none of which may be on loopback. */
  async serve(port: number, addresses: readonly string[]): Promise<void> {
    const path = `/apis/discovery.k8s.io/v1/namespaces/${NAMESPACE}/endpointslices`;
    await this.ask('POST', path, {
      metadata: { name: 'weir-bench', labels: { 'kubernetes.io/service-name': 'weir' } },
      addressType: 'IPv4',
      ports: [{ name: 'registry', port }],
      endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    });
  }

  /** Puts a text into the ConfigMap. */
  async configure(configuration: string): Promise<void> {
    const path = `/api/v1/namespaces/${NAMESPACE}/configmaps/weir`;
    await this.ask('PATCH', path, { data: { 'config.yaml': configuration } });
  }

  /** What the API server says of itself, in the text that Prometheus reads. */
  async metrics(): Promise<string> {
    return await this.ask('GET', '/metrics');
  }

  /** Lines of a watch, with what belongs to all objects and no more. */
  async stream(path: string, signal: AbortSignal): Promise<IncomingMessage> {
    const accept = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';
    const headers = { authorization: `Bearer ${this.#token}`, accept };
    const sent = request(`${this.#server}${path}`, {
      headers,
      rejectUnauthorized: false,
      agent: false,
      signal,
    });
    sent.end();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    sent.on('error', reject);
    sent.once('response', resolve);
    return await promise;
  }

  /** The server as somebody who may do everything. @throws Error when it refuses. */
  async ask(method: string, path: string, body?: object): Promise<string> {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const sent = request(`${this.#server}${path}`, {
      method,
      agent: this.#agent,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': type },
    });
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    sent.once('error', reject);
    sent.once('response', (response) => {
      const code = response.statusCode ?? 0;
      const said = text(response);
      if (code < 300) said.then(resolve, reject);
      else said.then((why) => reject(new Error(`${method} ${path}: ${code} ${why.slice(0, 300)}`)), reject);
    });
    sent.end(body === undefined ? undefined : JSON.stringify(body));
    return await promise;
  }

  /** Kills the server, and starts it again so much later. */
  async restart(pauseMs: number): Promise<void> {
    const [command = '', ...parameters] = await commandOf(this.pid);
    process.kill(this.pid, 'SIGKILL');
    await setTimeout(pauseMs);
    await this.#restarted?.stop('SIGKILL');
    this.#restarted = await startChild(command, parameters, join(this.#scratch, 'api-server.log'));
    this.pid = this.#restarted.pid;
    for (;;) {
      const answer = await this.ask('GET', '/readyz').catch(() => '');
      if (answer === 'ok') return;
      await setTimeout(LOOK_EVERY_MS);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    await this.#restarted?.stop('SIGKILL');
    await this.#api.stop();
  }
}

/** The sum of a metric, in the text that Prometheus reads. */
export function sumOf(metrics: string, name: string, labels = /./): number {
  const samples = metrics.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm'));
  return samples.reduce((sum, [, label = ' ', value]) => sum + (labels.test(label) ? Number(value) : 0), 0);
}

function nodeNumber(index: number): object {
  const name = nodeName(index);
  const images = Array.from({ length: IMAGES }, (_, image) => ({
    names: [
      `registry.example/team/program-${image}@sha256:${'0'.repeat(64)}`,
      `registry.example/team/program-${image}:1`,
    ],
    sizeBytes: 100_000_000,
  }));
  const labels = { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' };
  return { apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, status: { images } };
}

/** The process with such a parameter. @throws Error when there is none. */
async function pidOf(parameter: string): Promise<number> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    // One that has ended meanwhile has none.
    const parameters = await commandOf(Number(pid)).catch((): string[] => []);
    if (parameters.includes(parameter)) return Number(pid);
  }
  throw new Error(`no process has the parameter ${parameter}`);
}

async function commandOf(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);
}
