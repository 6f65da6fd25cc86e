// The project's own Kubernetes: a control plane and nodes of real parts, with upstream registries of their own,
// all in namespaces below one sandbox. README.md tells how to look into it.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { S3 } from './control-plane.ts';
import type { PodImage } from './image.ts';
import { REGISTRIES, REGISTRY_PASSWORD, REGISTRY_USER, registryNamed } from './layout.ts';
import { lastLines } from './logs.ts';
import { CONTROL_PLANE_NETWORK } from './network.ts';
import { eventually } from './patience.ts';
import type { Sandbox } from './sandbox.ts';
import { push, requestLog } from './upstream-files.ts';
import { readUpstreamLog, type UpstreamRequest } from './upstream-log.ts';

export interface ClusterNode {
  readonly name: string;
  /** From which it pulls. */
  readonly address: string;
}

/** Where a command runs: `control-plane`, `node1` …, or `outside`, where the upstreams are. */
export type Place = string;

/** The place around the cluster, where its upstreams are. */
export const OUTSIDE = 'outside';

/** A node that is there, or may be added. */
export interface PlannedNode extends ClusterNode {
  /** Starts it on a network of its own. */
  readonly boot: () => Promise<Sandbox>;
}

export class Cluster {
  /** Where all its files are. */
  readonly directory: string;
  /** The certificate that every node trusts, of who signed the upstreams': PEM. */
  readonly ca: string;
  /** What Pods may reach S3 with. */
  readonly s3: typeof S3 | undefined;
  /** Who may pull from the registries of corp.example. */
  readonly credentials = { username: REGISTRY_USER, password: REGISTRY_PASSWORD } as const;
  readonly #planned: readonly PlannedNode[];
  readonly #places: Map<Place, Sandbox>;
  #nodes: readonly ClusterNode[];
  readonly #stop: () => Promise<void>;
  #stopped: Promise<void> | undefined;
  #manifests = 0;

  /** For `startCluster`. */
  constructor(parts: {
    directory: string;
    nodes: readonly PlannedNode[];
    ca: string;
    s3: typeof S3 | undefined;
    places: Map<Place, Sandbox>;
    stop: () => Promise<void>;
  }) {
    this.directory = parts.directory;
    this.#planned = parts.nodes;
    this.#nodes = parts.nodes.filter(({ name }) => parts.places.has(name));
    this.ca = parts.ca;
    this.s3 = parts.s3;
    this.#places = parts.places;
    this.#stop = parts.stop;
  }

  /** Those that belong to the cluster, be they on or off. */
  get nodes(): readonly ClusterNode[] {
    return this.#nodes;
  }

  /** Starts one of the `laterNodes`, and waits until it is ready. */
  async addNode(): Promise<ClusterNode> {
    const node = this.#planned[this.#nodes.length];
    if (node === undefined) throw new Error('no node is left to be added: start with more laterNodes');
    this.#nodes = [...this.#nodes, node];
    await this.powerOn(node.name);
    const ready = '{.status.conditions[?(@.type=="Ready")].status}';
    await eventually(
      `${node.name} is ready`,
      async () => (await this.kubectl('get', 'node', node.name, `--output=jsonpath=${ready}`)) === 'True',
    );
    return node;
  }

  /** Ends a node at once, with all that runs on it. Its disk stays. */
  async powerOff(node: Place): Promise<void> {
    await this.#at(node).stop();
    this.#places.delete(node);
  }

  /** Starts a node with the disk that it had, an empty `/run` and a new network; it is ready some seconds later. */
  async powerOn(node: Place): Promise<void> {
    const planned = this.#planned.find(({ name }) => name === node);
    if (planned === undefined || this.#places.has(node)) throw new Error(`${node} is no node that is off`);
    this.#places.set(node, await planned.boot());
  }

  async reboot(node: Place): Promise<void> {
    await this.powerOff(node);
    await this.powerOn(node);
  }

  /** Standard output of kubectl, as the cluster's administrator. */
  kubectl(...args: readonly string[]): Promise<string> {
    return this.exec(CONTROL_PLANE_NETWORK, 'kubectl', ...args);
  }

  /** Applies objects: YAML, or objects to write as JSON. */
  async apply(manifest: string | readonly object[]): Promise<string> {
    const list = { apiVersion: 'v1', kind: 'List', items: manifest };
    const file = join(this.directory, `manifest-${++this.#manifests}.yaml`);
    await writeFile(file, typeof manifest === 'string' ? manifest : JSON.stringify(list));
    return this.kubectl('apply', '-f', file);
  }

  /** Standard output of helm, as the cluster's administrator. */
  helm(...args: readonly string[]): Promise<string> {
    return this.exec(CONTROL_PLANE_NETWORK, 'helm', ...args);
  }

  /** Standard output of a command that runs there. */
  exec(where: Place, command: string, ...args: readonly string[]): Promise<string> {
    return this.#at(where).exec(command, ...args);
  }

  /** Pulls as the kubelet does, without a Pod and without a password. */
  async pull(node: Place, reference: string): Promise<void> {
    await this.exec(node, 'cri-pull', '/run/containerd/containerd.sock', reference);
  }

  /** The command line, less the command, by which a shell of this machine does what `exec` does. */
  shell(where: Place): string {
    return this.#at(where).shell;
  }

  /** A file of a machine, as a path that this process can read and write. */
  path(where: Place, file: string): string {
    return this.#at(where).path(file);
  }

  /** All requests that reached the upstreams, or those of one registry, as images name it. */
  async upstreamLog(registry?: string): Promise<UpstreamRequest[]> {
    const all = await readUpstreamLog(requestLog(this.directory));
    return registry === undefined ? all : all.filter((request) => request.registry === registry);
  }

  /** From now on the registry, or each of them, refuses its connections, or lets every packet disappear. */
  async cutUpstream(registry?: string, how: 'refuse' | 'drop' = 'refuse'): Promise<void> {
    const cut = registry === undefined ? REGISTRIES : [registryNamed(registry)];
    const end = how === 'drop' ? ['DROP'] : ['REJECT', '--reject-with', 'tcp-reset'];
    for (const { address } of cut)
      await this.exec(OUTSIDE, 'iptables', '-I', 'INPUT', '-p', 'tcp', '-d', address, '-j', ...end);
  }

  /** Ends what `cutUpstream` did, for all of them. */
  async restoreUpstream(): Promise<void> {
    await this.exec(OUTSIDE, 'iptables', '-F', 'INPUT');
  }

  /** Does something while every upstream refuses its connections. */
  async whileCut(act: () => Promise<void>): Promise<void> {
    await this.cutUpstream();
    try {
      await act();
    } finally {
      await this.restoreUpstream();
    }
  }

  /**
   * Puts an image into an upstream, under a whole name such as `docker.io/library/web:1`.
   *
   * @param image an image, or the path of an OCI layout.
   * @returns the digest that the tag now means.
   */
  pushImage(reference: string, image: PodImage | string): Promise<string> {
    return push(this.directory, reference, image);
  }

  /** The last lines of every program of the cluster: for who wants to know why. */
  async logs(lines = 5): Promise<string> {
    return lastLines(this.directory, lines);
  }

  /** Ends all of it, and leaves nothing behind. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  #at(where: Place): Sandbox {
    const found = this.#places.get(where);
    if (found === undefined)
      throw new Error(`the cluster has no ${where}; there are ${[...this.#places.keys()].join(', ')}`);
    return found;
  }
}
