import { join } from 'node:path';
import process from 'node:process';
import { type Child, startChild } from './child.ts';
import {
  type Fault,
  type LinkSettings,
  listeningSchema,
  type Pushed,
  pushedSchema,
  type Seen,
  type SeenRequest,
  seenSchema,
} from './upstream-control.ts';

const MAIN = join(import.meta.dirname, 'distant-upstream.ts');

/** The distant upstream, started and told what to do. */
export class UpstreamProcess {
  readonly #child: Child;
  readonly #control: string;
  /** `http://127.0.0.1:PORT` of the registry. */
  readonly url: string;
  #images = 0;

  private constructor(child: Child, ports: { data: number; control: number }) {
    this.#child = child;
    this.url = `http://127.0.0.1:${ports.data}`;
    this.#control = `http://127.0.0.1:${ports.control}`;
  }

  /** `directory`: for its output. */
  static async start(directory: string, { tokens = false } = {}): Promise<UpstreamProcess> {
    const flags = tokens ? ['--tokens'] : [];
    const child = await startChild(process.execPath, [MAIN, ...flags], join(directory, 'upstream.log'));
    const ports: unknown = JSON.parse(await child.match(/^(\{.*\})$/m));
    return new UpstreamProcess(child, listeningSchema.parse(ports));
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** An image with layers of these sizes that nobody has pulled yet. */
  async push(sizes: readonly number[]): Promise<Pushed> {
    this.#images += 1;
    return pushedSchema.parse(
      await this.#tell('/images', { repository: `bench/image-${this.#images}`, sizes }),
    );
  }

  async setFault(fault: Fault): Promise<void> {
    await this.#tell('/fault', fault);
  }

  async setLink(settings: LinkSettings): Promise<void> {
    await this.#tell('/link', settings);
  }

  /** Closes connections on which nothing is asked at the moment. */
  async closeIdle(): Promise<void> {
    await this.#tell('/close-idle');
  }

  /** Has connections refused until {@link resume}. */
  async refuse(): Promise<void> {
    await this.#tell('/stop');
  }

  async resume(): Promise<void> {
    await this.#tell('/resume');
  }

  /** What it was asked since it was started, or since {@link forget}. */
  async seen(): Promise<Seen> {
    return seenSchema.parse(await (await fetch(this.#control)).json());
  }

  async forget(): Promise<void> {
    await this.#tell('/forget');
  }

  /** The requests with this method for what ends so. */
  async requests(method: string, end: string): Promise<SeenRequest[]> {
    const { requests } = await this.seen();
    return requests.filter(
      (request) => request.method === method && request.path.split('?')[0]?.endsWith(end),
    );
  }

  async stop(): Promise<void> {
    await this.#child.stop('SIGKILL');
  }

  async #tell(path: string, message: unknown = {}): Promise<unknown> {
    const answer = await fetch(this.#control + path, { method: 'POST', body: JSON.stringify(message) });
    if (!answer.ok) throw new Error(`the distant upstream refused ${path}: ${answer.status}`);
    return await answer.json();
  }
}
