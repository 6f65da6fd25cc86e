import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { bundle } from '../build/bundle.ts';
import { freePort } from '../test/containerd/port.ts';
import { type Child, startChild } from './child.ts';
import { NAMESPACE, nodeName } from './nodes-cluster.ts';

const ROOT = join(import.meta.dirname, '..');

export interface ShippedAgentOptions {
  readonly directory: string;
  readonly kubeconfig: string;
  /** Where it writes. */
  readonly certsDir: string;
  readonly criSocket: string;
}

/** `weir agent` as the image has it and the DaemonSet starts it: bundled, and with the flags and variables that it has there. */
export class ShippedAgent {
  readonly #child: Child;
  readonly #status: string;

  private constructor(child: Child, status: string) {
    this.#child = child;
    this.#status = status;
  }

  static async start(options: ShippedAgentOptions): Promise<ShippedAgent> {
    const { directory, kubeconfig, certsDir, criSocket } = options;
    const program = join(directory, 'weir');
    await mkdir(program);
    const { files } = await bundle(ROOT);
    for (const { name, content } of files) await writeFile(join(program, name), content);
    await writeFile(join(program, 'package.json'), JSON.stringify({ type: 'module' }));
    const status = `127.0.0.1:${await freePort()}`;
    const parameters = {
      '--config-map': `${NAMESPACE}/weir`,
      '--node': nodeName(0),
      '--certs-dir': certsDir,
      '--state-dir': join(directory, 'state'),
      '--registry-service': `${NAMESPACE}/weir`,
      '--daemon-set': `${NAMESPACE}/weir-agent`,
      '--door': `127.0.0.1:${await freePort()}`,
      '--cri-socket': criSocket,
      '--listen': status,
    };
    const { environment, flags } = await asShipped();
    const node = [...environment, process.execPath, ...flags, join(program, 'main.js')];
    const command = [`KUBECONFIG=${kubeconfig}`, ...node, 'agent', ...Object.entries(parameters).flat()];
    return new ShippedAgent(await startChild('env', command, join(directory, 'agent.log')), status);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** A metric of the agent, the sum over those labels that match; `undefined` while it does not answer. */
  async metric(name: string, labels = /(?:)/): Promise<number | undefined> {
    const answer = await fetch(`http://${this.#status}/metrics`).catch(() => undefined);
    if (answer === undefined) return undefined;
    const samples = (await answer.text()).matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)$`, 'gm'));
    return samples.reduce((sum, [, label = '', value]) => sum + (labels.test(label) ? Number(value) : 0), 0);
  }

  async output(): Promise<string> {
    return await this.#child.output();
  }

  async stop(): Promise<void> {
    await this.#child.stop('SIGKILL');
  }
}

/** What the Dockerfile and the DaemonSet give Node: their variables, and the flags before the program. */
export async function asShipped(): Promise<{ environment: readonly string[]; flags: readonly string[] }> {
  const dockerfile = await readFile(join(ROOT, 'Dockerfile'), 'utf8');
  const daemonSet = await readFile(join(ROOT, 'charts/weir/templates/agent/daemonset.yaml'), 'utf8');
  const environment = [
    ...dockerfile.matchAll(/^ENV (\w+)="?(.*?)"?$/gm),
    ...daemonSet.matchAll(/- name: (\w+)\n +value: "?(.+?)"?$/gm),
  ].map(([, name, value]) => `${name}=${value}`);
  const [, command = ''] = /^ +command:\n((?: +- .+\n)+)/m.exec(daemonSet) ?? [];
  return { environment, flags: [...command.matchAll(/- (--.+)$/gm)].flatMap(([, flag]) => flag ?? []) };
}
